/* A growable byte queue with an upper bound, and allocation that cannot fail quietly. */
#ifndef FORKD_BUF_H
#define FORKD_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes `data[off] .. data[off + len - 1]`. `overflow` stays set once an add did not fit `max`. */
struct buf {
  uint8_t *data;
  size_t off;
  size_t len;
  size_t cap;
  size_t max;
  bool overflow;
};

/* Allocates or ends the process: every size is bounded, so failure means a dead guest. */
void *xalloc(size_t size);
void *xrealloc(void *old, size_t size);
char *xstrndup(const char *text, size_t len);
char *xstrdup(const char *text);

void buf_init(struct buf *b, size_t max);
void buf_free(struct buf *b);
void buf_clear(struct buf *b);
/* Appends all or nothing; false (and `overflow`) when it would exceed `max`. */
bool buf_add(struct buf *b, const void *data, size_t len);
bool buf_puts(struct buf *b, const char *text);
bool buf_printf(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
void buf_consume(struct buf *b, size_t len);
static inline const uint8_t *buf_head(const struct buf *b) { return b->data + b->off; }
/* Appends and drops from the front what exceeds `keep`: the tail of a log. */
void buf_add_tail(struct buf *b, const void *data, size_t len, size_t keep);
/* NUL-terminates the content (not counted in len) and returns it. */
const char *buf_text(struct buf *b);

#endif
