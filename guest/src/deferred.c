#include "deferred.h"

#include "bounds.h"
#include "buf.h"

static struct buf frames; /* as they came: header, payload */
static uint32_t streams[STREAMS_MAX];
static size_t stream_count;

bool deferred_has(uint32_t stream) {
  for (size_t i = 0; i < stream_count; i++) {
    if (streams[i] == stream) return true;
  }
  return false;
}

bool deferred_add(const struct frame *f) {
  bool known = deferred_has(f->stream);
  if (!known && stream_count == STREAMS_MAX) return false;
  if (!frames.max) buf_init(&frames, DEFERRED_BYTES_MAX);
  if (frames.len + FRAME_HEADER_BYTES + f->length > DEFERRED_BYTES_MAX) return false;
  uint8_t header[FRAME_HEADER_BYTES];
  frame_header(header, f->type, f->stream, f->length);
  buf_add(&frames, header, sizeof header);
  buf_add(&frames, f->payload, f->length);
  if (!known) streams[stream_count++] = f->stream;
  return true;
}

void deferred_replay(void (*take)(const struct frame *f)) {
  struct buf old = frames;
  buf_init(&frames, DEFERRED_BYTES_MAX);
  stream_count = 0;
  while (old.len >= FRAME_HEADER_BYTES) {
    const uint8_t *head = buf_head(&old);
    struct frame f = {head[4], le32(head + 8), head + FRAME_HEADER_BYTES, le32(head)};
    take(&f);
    buf_consume(&old, FRAME_HEADER_BYTES + f.length);
  }
  buf_free(&old);
}

void deferred_clear(void) {
  buf_free(&frames);
  stream_count = 0;
}
