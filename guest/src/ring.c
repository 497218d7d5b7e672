#include "ring.h"

void ring_init(struct ring *r) {
  buf_init(&r->bytes, EXEC_RING_BYTES);
  r->end = 0;
  r->run_first = r->run_count = 0;
}

void ring_free(struct ring *r) { buf_free(&r->bytes); }

static struct ring_run *run_of(struct ring *r, unsigned at) {
  return &r->runs[(r->run_first + at) % EXEC_RING_RUNS_MAX];
}

static void forget_first_run(struct ring *r) {
  r->run_first = (r->run_first + 1) % EXEC_RING_RUNS_MAX;
  r->run_count--;
}

/* A run that lost its last byte is of no use; one that must make place takes its bytes along. */
static void forget_runs(struct ring *r, bool one_more) {
  while (r->run_count > 0 && run_of(r, 0)->end <= ring_start(r)) forget_first_run(r);
  if (!one_more || r->run_count < EXEC_RING_RUNS_MAX) return;
  buf_consume(&r->bytes, (size_t)(run_of(r, 0)->end - ring_start(r)));
  forget_first_run(r);
}

void ring_add(struct ring *r, uint8_t which, const uint8_t *data, size_t len) {
  if (len == 0) return;
  bool same = r->run_count > 0 && run_of(r, r->run_count - 1)->which == which;
  forget_runs(r, !same);
  buf_add_tail(&r->bytes, data, len, EXEC_RING_BYTES);
  r->end += len;
  if (!same) r->run_count++;
  *run_of(r, r->run_count - 1) = (struct ring_run){r->end, which};
  forget_runs(r, false);
}

size_t ring_at(const struct ring *r, uint64_t offset, uint8_t *which, const uint8_t **data) {
  *data = buf_head(&r->bytes) + (offset - ring_start(r));
  for (unsigned i = 0; i < r->run_count; i++) {
    const struct ring_run *run = &r->runs[(r->run_first + i) % EXEC_RING_RUNS_MAX];
    if (run->end <= offset) continue;
    *which = run->which;
    return (size_t)(run->end - offset);
  }
  return 0;
}
