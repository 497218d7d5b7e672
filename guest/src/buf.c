#include "buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"

void *xalloc(size_t size) {
  void *p = calloc(1, size ? size : 1);
  if (!p) log_fatal("out of memory (%zu bytes)", size);
  return p;
}

void *xrealloc(void *old, size_t size) {
  void *p = realloc(old, size ? size : 1);
  if (!p) log_fatal("out of memory (%zu bytes)", size);
  return p;
}

char *xstrndup(const char *text, size_t len) {
  char *p = xalloc(len + 1);
  memcpy(p, text, len);
  return p;
}

char *xstrdup(const char *text) { return xstrndup(text, strlen(text)); }

void buf_init(struct buf *b, size_t max) {
  memset(b, 0, sizeof *b);
  b->max = max;
}

void buf_free(struct buf *b) {
  free(b->data);
  buf_init(b, b->max);
}

void buf_clear(struct buf *b) {
  b->off = b->len = 0;
  b->overflow = false;
}

/* Makes room for `extra` bytes and a NUL behind the content. */
static void reserve(struct buf *b, size_t extra) {
  if (b->off + b->len + extra + 1 <= b->cap) return;
  /* Moving down pays only when at least half of the room comes back. */
  if (b->off && b->off >= b->len) {
    memmove(b->data, b->data + b->off, b->len);
    b->off = 0;
  }
  if (b->off + b->len + extra + 1 <= b->cap) return;
  size_t cap = b->cap ? b->cap : 256;
  while (cap < b->off + b->len + extra + 1) cap *= 2;
  b->data = xrealloc(b->data, cap);
  b->cap = cap;
}

bool buf_add(struct buf *b, const void *data, size_t len) {
  if (len > b->max || b->len > b->max - len) {
    b->overflow = true;
    return false;
  }
  if (len == 0) return true;
  reserve(b, len);
  memcpy(b->data + b->off + b->len, data, len);
  b->len += len;
  return true;
}

bool buf_puts(struct buf *b, const char *text) { return buf_add(b, text, strlen(text)); }

bool buf_printf(struct buf *b, const char *format, ...) {
  char text[1024];
  va_list args;
  va_start(args, format);
  int n = vsnprintf(text, sizeof text, format, args);
  va_end(args);
  if (n < 0) return false;
  size_t len = (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
  return buf_add(b, text, len);
}

void buf_consume(struct buf *b, size_t len) {
  if (len >= b->len) {
    b->off = b->len = 0;
    return;
  }
  b->off += len;
  b->len -= len;
}

void buf_add_tail(struct buf *b, const void *data, size_t len, size_t keep) {
  const uint8_t *bytes = data;
  if (len > keep) {
    bytes += len - keep;
    len = keep;
  }
  if (b->len + len > keep) buf_consume(b, b->len + len - keep);
  buf_add(b, bytes, len);
}

const char *buf_text(struct buf *b) {
  reserve(b, 0);
  b->data[b->off + b->len] = 0;
  return (const char *)(b->data + b->off);
}
