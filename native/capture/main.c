/*
 * forkd-capture: writes down a running VM at one instant: its memory, as the pages that differ from
 * what it was forked from, and its CPU and devices. The VM runs again after milliseconds.
 *
 * It does all of it, the stop included, in a process of its own: how long the guest stands must not
 * depend on what the daemon's event loop has to do. Whatever happens, the VM runs on: a thread of
 * its own watches the pause's budget and the caller (guard.c).
 *
 * stdout, one JSON object a line:
 *   {"event":"ready",...}    all is prepared; the caller now holds the guest, and answers `go`
 *   {"event":"resumed",...}  the VM runs again; pause_us as its own events tell
 *   {"event":"done",...}     the files are whole
 *   {"event":"error","code":...,"message":...,"running":...,"pivoted":...}  exit code 1: no file is
 *                            left; whether the VM is known to run; how many pivots were done
 * stdin: `go`, a line. Its end, like SIGTERM, ends the capture.
 *
 * Modes. `stopped`: all pages are copied while the guest stands. `live`: they are copied while it
 * runs, what was written meanwhile is copied again, until little is left for the pause.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "capture.h"

enum {
  /* Rounds while the guest runs freely, and then while the caller holds its processes. */
  free_rounds_max = 12,
  held_rounds_max = 6,
  /* With this much left the guest may be stopped: half a millisecond of copying. */
  small_bytes = 1024 * 1024,
  /* Room for what the guest writes between the estimate and the pause. */
  spare_bytes = 8 * 1024 * 1024,
  spare_runs = 16384,
  /* QEMU's name for the descriptors that it writes the state to. */
  state_set = 91,
  /* What stopping, saving and resuming take without any page. */
  fixed_pause_us = 3000,
  /* A state is tens of kilobytes. */
  state_bytes_max = 64 * 1024 * 1024,
};

static struct {
  struct options options;
  struct target target;
  struct image image;
  struct output output;
  struct copier copier;
  struct run_list found;
  unsigned rounds;
  uint64_t dirty_bytes;
  int state_fd;
} capture;

/* What is done before the program ends early, from wherever that is. */
static struct aftermath leave(void) {
  guard_resume();
  bool running = !guard_has_stopped() || qmp_await_resume();
  tracker_stop();
  remove_own_files();
  return (struct aftermath){.running = running, .pivoted = qmp_pivoted()};
}

/*
 * The state goes to memory first: creating a file in the pause could wait for a journal. QEMU takes
 * a descriptor of a set only if it is open just as it asks for: for writing.
 */
static void prepare_state(void) {
  char path[64];
  capture.state_fd = memfd_create("vmstate", MFD_CLOEXEC);
  snprintf(path, sizeof path, "/proc/self/fd/%d", capture.state_fd);
  int write_fd = capture.state_fd < 0 ? -1 : open(path, O_WRONLY | O_CLOEXEC);
  if (write_fd < 0) fail_errno("create", "the state's memory");
  qmp_give_fd(write_fd, state_set);
  close(write_fd);
}

static void save_state(void) {
  char command[160];
  const char *form = "{\"execute\":\"xen-save-devices-state\",\"arguments\":"
                     "{\"filename\":\"/dev/fdset/%d\",\"live\":false}}";
  snprintf(command, sizeof command, form, state_set);
  qmp_run(command);
}

static void forget_state(void) {
  char command[96];
  const char *form = "{\"execute\":\"remove-fd\",\"arguments\":{\"fdset-id\":%d}}";
  snprintf(command, sizeof command, form, state_set);
  qmp_run(command);
}

static void write_state(void) {
  struct stat st;
  if (fstat(capture.state_fd, &st) != 0) fail_errno("look at", "the state");
  size_t size = (size_t)st.st_size;
  if (size == 0 || size > state_bytes_max) fail(CODE_MONITOR, "a state of %zu bytes", size);
  void *bytes = mmap(NULL, size, PROT_READ, MAP_SHARED, capture.state_fd, 0);
  if (bytes == MAP_FAILED) fail_errno("map", "the state");
  write_file(capture.options.vmstate, bytes, size, capture.options.sync);
}

/*
 * The guest waits for this thread alone, for milliseconds: it runs before all that is no real-time
 * work. Without the right to, it waits its turn.
 */
static void hurry(void) {
  const struct sched_param first = {.sched_priority = 1};
  sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &first);
}

static void relax(void) {
  const struct sched_param usual = {.sched_priority = 0};
  sched_setscheduler(0, SCHED_OTHER, &usual);
}

static void copy_round(enum scan_kind kind) {
  scan_pages(&capture.target, kind, &capture.found);
  copier_copy(&capture.copier, &capture.found);
  capture.rounds++;
}

/* Rounds until little is left, or they do not make it less. Gives what the last one copied. */
static uint64_t copy_rounds(unsigned max, bool flush) {
  uint64_t before = UINT64_MAX;
  for (unsigned round = 0;; round++) {
    copy_round(scan_reset);
    if (flush) copier_flush(&capture.copier);
    uint64_t bytes = capture.found.bytes;
    bool hopeless = round > 0 && bytes > before - before / 8;
    if (bytes <= small_bytes || round + 1 >= max || hopeless) return bytes;
    before = bytes;
  }
}

/* Everything that needs time or may be refused, before anybody has to wait for it. */
static uint64_t prepare(void) {
  const struct options *options = &capture.options;
  target_open(&capture.target, options);
  image_open(&capture.image, options);
  scan_prepare(&capture.target, options->plain_pagemap);
  if (options->live && !scan_has_ioctl()) fail(CODE_LIVE, "the kernel cannot track writes");
  qmp_open(options->monitor);
  prepare_state();
  output_open(&capture.output, &capture.image, options);
  copier_open(&capture.copier, &capture.target, &capture.output);
  run_list_reserve(&capture.found, spare_runs);
  uint64_t left;
  if (options->live) {
    tracker_start(&capture.target);
    scan_protect(&capture.target);
    copy_round(scan_private);
    copier_flush(&capture.copier);
    left = copy_rounds(free_rounds_max, true);
  } else {
    scan_pages(&capture.target, scan_private, &capture.found);
    left = capture.found.bytes;
  }
  copier_reserve(&capture.copier, left + left / 4 + spare_bytes, capture.found.count + spare_runs);
  return left;
}

/* A pause that is known to be too long is not begun. */
static void require_budget(uint64_t left) {
  uint64_t budget_us = capture.options.max_pause_ms * 1000;
  uint64_t estimate_us = fixed_pause_us + copier_estimate_us(&capture.copier, left);
  if (budget_us == 0 || estimate_us <= budget_us) return;
  const char *form = "the guest writes too fast: %" PRIu64 " KiB are left, which would take about %"
                     PRIu64 " ms";
  fail(CODE_BUDGET, form, left / 1024, estimate_us / 1000);
}

struct pause_times {
  uint64_t stopped_us;
  uint64_t saved_us;
  uint64_t copied_us;
};

static struct pause_times copy_stopped(void) {
  struct pause_times times;
  guard_stop();
  uint64_t began = now_us();
  qmp_await_stop();
  times.stopped_us = now_us() - began;
  save_state();
  for (size_t i = 0; i < capture.options.pivot_count; i++) qmp_pivot(capture.options.pivots[i]);
  times.saved_us = now_us() - began;
  guard_check();
  copy_round(capture.options.live ? scan_written : scan_private);
  target_require_alive(&capture.target);
  guard_check();
  times.copied_us = now_us() - began;
  capture.dirty_bytes = capture.found.bytes;
  guard_resume();
  if (!qmp_await_resume()) fail(CODE_MONITOR, "the VM did not say that it runs again");
  return times;
}

static void run_capture(uint64_t left) {
  guard_await_go();
  hurry();
  uint64_t go_us = now_us();
  if (capture.options.live) {
    left = copy_rounds(held_rounds_max, false);
    require_budget(left);
  }
  struct pause_times times = copy_stopped();
  report("resumed",
         "\"pause_us\":%" PRIu64 ",\"held_us\":%" PRIu64 ",\"stop_us\":%" PRIu64
         ",\"state_us\":%" PRIu64 ",\"copy_us\":%" PRIu64 ",\"dirty_bytes\":%" PRIu64,
         qmp_pause_us(), now_us() - go_us, times.stopped_us, times.saved_us - times.stopped_us,
         times.copied_us - times.saved_us, capture.dirty_bytes);
}

static void finish(void) {
  relax();
  tracker_stop();
  forget_state();
  copier_flush(&capture.copier);
  if (capture.options.all) output_complete(&capture.output);
  write_state();
  struct output_totals totals = output_close(&capture.output, &capture.options);
  guard_check();
  report("done",
         "\"pages\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"extents\":%" PRIu64
         ",\"rounds\":%u,\"dirty_bytes\":%" PRIu64 ",\"copied_bytes\":%" PRIu64,
         totals.pages, totals.pages * page_size, totals.extents, capture.rounds,
         capture.dirty_bytes, capture.copier.copied_bytes);
}

int main(int argc, char **argv) {
  fail_leaves_by(leave);
  capture.options = parse_options(argc, argv);
  guard_start(capture.options.max_pause_ms);
  uint64_t left = prepare();
  report("ready", "\"rounds\":%u,\"left_bytes\":%" PRIu64, capture.rounds, left);
  run_capture(left);
  finish();
  return 0;
}
