/* The warm interpreter: a child that speaks one JSON object a line. One at a time. */
#ifndef FORKD_RUNTIME_H
#define FORKD_RUNTIME_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "json.h"

enum runtime_kind { RUNTIME_NONE, RUNTIME_PYTHON, RUNTIME_NODE, RUNTIME_BRIDGE };
enum runtime_state { RUNTIME_OFF, RUNTIME_STARTING, RUNTIME_READY };

/* Called once for each start: `text` is the detail, or why it failed. */
typedef void runtime_ready_fn(bool ok, const char *text);

/* Who hears a runtime that is ready. */
struct runtime_listener {
  void (*line)(const char *text, size_t len); /* without its newline */
  void (*output)(int which); /* there is some on descriptor 1 or 2: runtime_read */
  void (*death)(void);
};

/* Where python.py and node.mjs are. */
void runtime_set_dir(const char *dir);
/* What a start runs: imports (NULL-terminated, copied) or, for a bridge, the command. */
void runtime_configure(enum runtime_kind kind, char *const *words,
                       const struct runtime_listener *listener);
/* After `timeout_ms` the attempt is killed. */
void runtime_start(runtime_ready_fn *ready, uint64_t timeout_ms);
enum runtime_kind runtime_kind(void);
enum runtime_state runtime_state(void);
/* "python", "node" or "none". */
const char *runtime_name(void);
/* Version of numpy in the runtime, or "not-installed". */
const char *runtime_numpy(void);
/* Queues one line (with its newline). */
void runtime_send(const void *line, size_t len);
void runtime_interrupt(void);
/* Ends it and its process group; its death is then reported. */
void runtime_kill(void);
/* Reads one piece of what it printed: >0 bytes, 0 nothing now, and 0 for ever at the end. */
ssize_t runtime_read(int which, void *data, size_t max);
void runtime_watch_output(int which, bool on);

#endif
