#include <stdint.h>
#include <string.h>

#include "frame.h"

static void attached(void *arg) { (void)arg; }
static void broken(void *arg, const char *why) {
  (void)arg;
  (void)why;
}

/* Every payload byte must be readable and within the bound. */
static void frame(void *arg, const struct frame *f) {
  uint32_t *sum = arg;
  if (f->length > FRAME_PAYLOAD_BYTES_MAX) __builtin_trap();
  for (uint32_t i = 0; i < f->length; i++) *sum += f->payload[i];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static struct wire wire;
  uint32_t sum = 0;
  struct wire_handler on = {attached, frame, broken, &sum};
  wire_init(&wire, &on);
  if (size && data[0] & 1) wire_read(&wire, (const uint8_t *)FIRST_TOKEN, TOKEN_BYTES);
  /* The first byte also says in what pieces the rest comes. */
  size_t piece = size ? (data[0] >> 1) + 1U : 1;
  for (size_t at = 1; at < size; at += piece) {
    wire_read(&wire, data + at, size - at < piece ? size - at : piece);
  }
  return 0;
}
