/* The last output of a command: bytes of both outputs in the order in which they were read. */
#ifndef FORKD_RING_H
#define FORKD_RING_H

#include <stdint.h>

#include "bounds.h"
#include "buf.h"

/* A run of bytes of one output, up to the offset `end`. */
struct ring_run {
  uint64_t end;
  uint8_t which; /* 1 or 2 */
};

/* Offsets count all output since the command began; EXEC_RING_BYTES of it at most are kept. */
struct ring {
  struct buf bytes;
  uint64_t end;
  struct ring_run runs[EXEC_RING_RUNS_MAX];
  unsigned run_first;
  unsigned run_count;
};

void ring_init(struct ring *r);
void ring_free(struct ring *r);
/* Drops the oldest bytes, or runs, that there is no room for. */
void ring_add(struct ring *r, uint8_t which, const uint8_t *data, size_t len);
static inline uint64_t ring_start(const struct ring *r) { return r->end - r->bytes.len; }
/* The bytes at `offset`, of one output; `offset` is within [ring_start, end). Returns how many. */
size_t ring_at(const struct ring *r, uint64_t offset, uint8_t *which, const uint8_t **data);

#endif
