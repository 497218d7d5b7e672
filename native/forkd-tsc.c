/*
 * forkd-tsc: prints the frequency of this host's time stamp counter, in kHz.
 *
 * QEMU's emulation gives a guest the host's counter. A guest that measures the counter against an
 * emulated PIT gets it wrong by hundreds of ppm, or not at all on a loaded host, and then runs
 * without it; so the host measures and tells it (tsc_early_khz on the kernel command line).
 *
 * Exit: 1 on a processor without a counter.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#if defined(__x86_64__)
#include <x86intrin.h>

enum { interval_ms = 50, tries = 8 };

struct sample {
  uint64_t ns;
  uint64_t ticks;
};

static uint64_t clock_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Both clocks at one moment: of several tries the one that was disturbed least. */
static struct sample take(void) {
  struct sample best = {0, 0};
  uint64_t best_spread = UINT64_MAX;
  for (int i = 0; i < tries; i++) {
    uint64_t before = __rdtsc();
    uint64_t ns = clock_ns();
    uint64_t after = __rdtsc();
    if (after - before >= best_spread) continue;
    best_spread = after - before;
    best = (struct sample){ns, before + (after - before) / 2};
  }
  return best;
}

int main(void) {
  struct sample first = take();
  struct timespec wait = {0, interval_ms * 1000000L};
  nanosleep(&wait, NULL);
  struct sample last = take();
  uint64_t ns = last.ns - first.ns;
  if (ns == 0 || last.ticks <= first.ticks) return 1;
  /* ticks per ms, without overflow: ticks of an interval are far below 2^63 / 10^6. */
  printf("%llu\n", (unsigned long long)((last.ticks - first.ticks) * 1000000u / ns));
  return 0;
}
#else
int main(void) { return 1; }
#endif
