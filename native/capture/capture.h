/*
 * forkd-capture, see main.c. A function that cannot do its work ends the program through fail(),
 * which leaves the VM running and no file behind; so none of them returns an error.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdnoreturn.h>
#include <sys/types.h>

/* The guest's and the host's: a layer's offsets and lengths are multiples of it. */
enum { page_size = 4096 };

/* ---- options.c ---- */

enum { pivots_max = 8 };

struct options {
  pid_t pid;
  uint64_t start_ticks;
  const char *monitor;
  uint64_t ram_bytes;
  bool live;
  /* The whole RAM, not only what differs from the image. */
  bool all;
  bool sync;
  /* Read the page map word by word even where the kernel can scan it. */
  bool plain_pagemap;
  const char *vmstate;
  const char *pages;
  const char *extents;
  const char *base;
  /* Both or neither. */
  const char *overlay;
  const char *overlay_extents;
  /* 0: no budget of the caller; a bound of our own holds. */
  uint64_t max_pause_ms;
  const char *pivots[pivots_max];
  size_t pivot_count;
};

/* Exits with 2 and a usage line when they make no sense. */
struct options parse_options(int argc, char **argv);

/* ---- report.c: events for the caller, one JSON object a line ---- */

/* `format` makes the fields of the object, already JSON, after its name. */
void report(const char *event, const char *format, ...) __attribute__((format(printf, 2, 3)));
void report_error(const char *code, const char *message, const char *fields);

/* ---- fail.c ---- */

/* Codes: what the engine turns into its own errors. */
#define CODE_ABORTED "aborted"
#define CODE_BUDGET "budget_exceeded"
#define CODE_DISK_FULL "disk_full"
#define CODE_GONE "process_gone"
#define CODE_LAYOUT "layout_unknown"
#define CODE_LIVE "live_unsupported"
#define CODE_MONITOR "monitor_failed"
#define CODE_SYSTEM "system_failed"

/* What a capture that ends early leaves: whether the VM runs, and how many pivots were done. */
struct aftermath {
  bool running;
  unsigned pivoted;
};
/* What a failure does first: resume the VM when it is stopped, give up all that was taken. */
void fail_leaves_by(struct aftermath (*leave)(void));
/* Leaves, says why, and exits with 1. */
noreturn void fail(const char *code, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The same with errno's words behind; no space has a code of its own. */
noreturn void fail_errno(const char *what, const char *path);

/* ---- own-files.c ---- */

/* A file to be removed when the capture fails; from now on it is ours. */
void own_file(const char *path);
void remove_own_files(void);

/* ---- json.c: reading what QEMU says ---- */

/* The value of a key of the object at `object`, NULL when it has none. */
const char *json_get(const char *object, const char *key);
/* Copies a string value, cut to `size`; false when it is no string. */
bool json_text(const char *value, char *out, size_t size);
bool json_number(const char *value, uint64_t *out);
/* Escapes `text` for a JSON string, cut to `size`. */
void json_escape(const char *text, char *out, size_t size);

/* ---- guard.c: the thread that can always resume the VM ---- */

/* Starts the thread; it reads stdin, the signals and the pause's timer from now on. */
void guard_start(uint64_t max_pause_ms);
/* A descriptor that is readable when the program is to end, for those who wait for another. */
int guard_end_fd(void);
/* The monitor that `cont` goes to. */
void guard_watch(int monitor_fd);
/* Sends one whole line to the monitor, never into the middle of another. */
bool guard_send(const char *line);
/* Waits for `go`. */
void guard_await_go(void);
/* Ends the program when somebody wants it ended. To be called between steps. */
void guard_check(void);
/* Sends `stop` and starts the pause's clock. */
void guard_stop(void);
/* Sends `cont` when the VM is stopped and nobody has sent it yet. Idempotent. */
void guard_resume(void);
/* Whether `stop` has ever been sent. */
bool guard_has_stopped(void);

/* ---- qmp.c ---- */

/* Connects to the monitor and requires a VM that runs. */
void qmp_open(const char *path);
/* Runs one command, a JSON object without an id; fails with QEMU's words. */
void qmp_run(const char *command);
/* Waits for the answer to `stop`, which the guard sent with this id. */
#define STOP_ID "stop"
void qmp_await_stop(void);
/* Runs a command that moves a disk's writes elsewhere, and counts it. */
void qmp_pivot(const char *command);
unsigned qmp_pivoted(void);
/* Gives a descriptor to QEMU as its descriptor set `set`. */
void qmp_give_fd(int fd, unsigned set);
/* Waits for the RESUME event; false when it did not come. Never fails. */
bool qmp_await_resume(void);
/* Microseconds from the STOP event to the RESUME event. */
uint64_t qmp_pause_us(void);

/* ---- target.c: the VMM's process ---- */

struct target {
  pid_t pid;
  int pidfd;
  int pagemap_fd;
  /* Where the guest's RAM is in the process. */
  uint64_t ram_address;
  uint64_t ram_bytes;
};

struct run {
  /* Bytes, whole pages; an offset in the guest's RAM. */
  uint64_t offset;
  uint64_t length;
};

void target_open(struct target *target, const struct options *options);
/* Copies the runs' bytes, one behind the other. */
void target_read(const struct target *target, const struct run *runs, size_t count, uint8_t *to);
/* Ends the program unless the process lives: then all that was read was read from it. */
void target_require_alive(const struct target *target);
/* After a failed call: ends the program because the process ended, if that is the reason. */
void target_blame_end(const struct target *target);

/* ---- scan.c: which pages are the guest's own ---- */

struct run_list {
  struct run *runs;
  size_t count;
  size_t capacity;
  uint64_t bytes;
};

enum scan_kind {
  /* Every page that is private to the process: written since the image was mapped. */
  scan_private,
  /* Every page written since scan_protect or the last scan_reset. */
  scan_written,
  /* The same, and the next such scan begins here. */
  scan_reset,
};

/* Makes memory for the scans of `target`, so that none is asked for in the pause. */
void scan_prepare(const struct target *target, bool plain_pagemap);
/* The kernel can scan page maps, and so track what is written. */
bool scan_has_ioctl(void);
/* Fills `found` with the pages of that kind, sorted, joined where they touch. */
void scan_pages(const struct target *target, enum scan_kind kind, struct run_list *found);
/* Begins the time of scan_written; the tracker must have started. */
void scan_protect(const struct target *target);
void run_list_reserve(struct run_list *list, size_t capacity);
void run_list_add(struct run_list *list, uint64_t offset, uint64_t length);

/* ---- tracker.c: learns what the guest writes while it runs ---- */

/* Fails with CODE_LIVE where the kernel or the VMM has no asynchronous write protection. */
void tracker_start(const struct target *target);
/* Gives the memory back as it was. Idempotent; never fails. */
void tracker_stop(void);

/* ---- image.c: what the child was forked from ---- */

struct image {
  const uint8_t *base;
  const uint8_t *overlay;
  int base_fd;
  int overlay_fd;
  uint64_t bytes;
  /* A bit a page: the overlay has it. */
  uint64_t *overlaid;
};

void image_open(struct image *image, const struct options *options);
const uint8_t *image_page(const struct image *image, uint64_t offset);

/* ---- output.c: the layer that is written ---- */

struct output {
  const struct image *image;
  int pages_fd;
  /* A bit a page: it is part of the layer. */
  uint64_t *taken;
};

/* Creates the pages' file. */
void output_open(struct output *output, const struct image *image, const struct options *options);
/* Takes the pages of a run, whose bytes are at `data`. */
void output_write(struct output *output, struct run run, const uint8_t *data);
/* Takes every page of the image that was not taken before. */
void output_complete(struct output *output);
struct output_totals {
  uint64_t pages;
  uint64_t extents;
};
/* Writes the table of extents; makes all of it durable when asked. */
struct output_totals output_close(struct output *output, const struct options *options);
void write_file(const char *path, const void *data, size_t size, bool sync);

bool bit_get(const uint64_t *bits, uint64_t at);
void bit_set(uint64_t *bits, uint64_t at);
uint64_t *bits_new(uint64_t count);

/* ---- copier.c: from the guest to the output ---- */

struct copier {
  const struct target *target;
  struct output *output;
  uint8_t *buffer;
  size_t capacity;
  size_t used;
  /* What the buffer holds, in its order. */
  struct run_list held;
  /* What has been read and how long that took. */
  uint64_t copied_bytes;
  uint64_t copied_us;
};

void copier_open(struct copier *copier, const struct target *target, struct output *output);
/* Makes room for that much, up to a bound, so that it can be held while the guest stands. */
void copier_reserve(struct copier *copier, uint64_t bytes, size_t runs);
/* Reads the pages of the list into the buffer, which is written whenever it is full. */
void copier_copy(struct copier *copier, const struct run_list *list);
/* Writes what is held. */
void copier_flush(struct copier *copier);
/* How long a copy of that many bytes would take; 0 when nobody knows yet. */
uint64_t copier_estimate_us(const struct copier *copier, uint64_t bytes);

/* ---- clock.c ---- */

/* Microseconds of a clock that only goes forward. */
uint64_t now_us(void);
