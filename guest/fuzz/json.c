#include <stdint.h>
#include <string.h>

#include "json.h"

/* Reads, then writes what was read: strings that were taken must come out and be taken again. */
static void write_again(struct jw *w, const struct json *v) {
  for (; v; v = v->next) {
    if (v->type == JSON_STRING) jw_text(w, NULL, v->str, v->len);
    write_again(w, v->child);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct json_doc doc;
  struct json_doc again;
  struct buf out;
  struct jw w;
  if (json_parse(&doc, (const char *)data, size) < 0) return 0;
  buf_init(&out, 1U << 22);
  jw_init(&w, &out);
  jw_open(&w, NULL, '[');
  write_again(&w, doc.root);
  jw_close(&w, ']');
  if (!out.overflow) {
    if (json_parse(&again, buf_text(&out), out.len) < 0) __builtin_trap();
    json_free(&again);
  }
  json_free(&doc);
  buf_free(&out);
  return 0;
}
