/*
 * Copies pages out of the guest, through one buffer: while the guest runs it is small and written
 * again and again; while it stands it is large and is written when the guest runs again.
 */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>

#include "capture.h"

enum {
  /* Bytes between two looks at whether to go on. */
  step_bytes = 4 * 1024 * 1024,
  runs_at_first = 16384,
};

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* What is over it goes to the file while the guest stands. */
static const uint64_t buffer_bytes_max = 1024ull * 1024 * 1024;

/* Memory that is there: nothing waits for the kernel to find it. Large pages are found faster. */
static uint8_t *allocate(size_t bytes) {
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS;
  uint8_t *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (at == MAP_FAILED) fail_errno("allocate", "memory for the copy");
  madvise(at, bytes, MADV_HUGEPAGE);
  /* Where the kernel does not know the advice (before 5.14), a touch of each page does it. */
  if (madvise(at, bytes, MADV_POPULATE_WRITE) != 0) {
    for (size_t page = 0; page < bytes; page += page_size) at[page] = 0;
  }
  return at;
}

static void replace_buffer(struct copier *copier, uint64_t bytes) {
  const uint64_t large = 2 * 1024 * 1024;
  bytes = (bytes + large - 1) / large * large;
  if (bytes > buffer_bytes_max) bytes = buffer_bytes_max;
  if (bytes <= copier->capacity) return;
  if (copier->buffer != NULL) munmap(copier->buffer, copier->capacity);
  copier->buffer = allocate(bytes);
  copier->capacity = bytes;
}

void copier_open(struct copier *copier, const struct target *target, struct output *output) {
  *copier = (struct copier){.target = target, .output = output};
  replace_buffer(copier, step_bytes);
  run_list_reserve(&copier->held, runs_at_first);
}

void copier_reserve(struct copier *copier, uint64_t bytes, size_t runs) {
  copier_flush(copier);
  replace_buffer(copier, bytes + step_bytes);
  run_list_reserve(&copier->held, runs);
}

/* Later bytes of a page are written later, so in the end the last ones are in the file. */
void copier_flush(struct copier *copier) {
  struct run_list *held = &copier->held;
  const uint8_t *data = copier->buffer;
  for (size_t i = 0; i < held->count; i++) {
    output_write(copier->output, held->runs[i], data);
    data += held->runs[i].length;
    if (i % 256 == 0) guard_check();
  }
  held->count = 0;
  copier->used = 0;
}

/* What of the list from run `*at`, byte `*within`, fits into one step: added to what is held. */
static uint64_t take_step(struct copier *copier, const struct run_list *list, size_t *at,
                          uint64_t *within) {
  struct run_list *held = &copier->held;
  uint64_t taken = 0;
  while (*at < list->count && taken < step_bytes) {
    struct run run = list->runs[*at];
    uint64_t rest = run.length - *within;
    uint64_t part = rest < step_bytes - taken ? rest : step_bytes - taken;
    if (held->count == held->capacity) run_list_reserve(held, held->capacity * 2);
    held->runs[held->count++] = (struct run){run.offset + *within, part};
    taken += part;
    *within = part == rest ? 0 : *within + part;
    *at += part == rest;
  }
  return taken;
}

void copier_copy(struct copier *copier, const struct run_list *list) {
  size_t at = 0;
  uint64_t within = 0;
  while (at < list->count) {
    guard_check();
    if (copier->capacity - copier->used < step_bytes) copier_flush(copier);
    size_t first = copier->held.count;
    uint64_t bytes = take_step(copier, list, &at, &within);
    const struct run *runs = copier->held.runs + first;
    uint64_t began = now_us();
    target_read(copier->target, runs, copier->held.count - first, copier->buffer + copier->used);
    copier->copied_us += now_us() - began;
    copier->copied_bytes += bytes;
    copier->used += bytes;
  }
}

uint64_t copier_estimate_us(const struct copier *copier, uint64_t bytes) {
  if (copier->copied_bytes < step_bytes) return 0;
  return bytes * copier->copied_us / copier->copied_bytes;
}
