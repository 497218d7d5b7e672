/* A running command with its pipes, deadline and result. */
#ifndef FORKD_JOB_H
#define FORKD_JOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "spawn.h"

struct job;

struct job_result {
  int exit_code; /* -1 when killed by a signal */
  int signal;    /* 0 when it exited */
  bool timed_out;
  double duration_ms;
};

/* Who takes what the job gives. `output` never gets more than `room` said. */
struct job_sink {
  size_t (*room)(void *arg);
  void (*output)(void *arg, int which, const uint8_t *data, size_t len); /* which: 1 or 2 */
  void (*took)(void *arg, size_t stdin_bytes);                           /* may be NULL */
  void (*done)(void *arg, const struct job_result *result);              /* last call */
  void *arg;
};

/* `what->fds` are set here: pipes, or with `what->tty` a terminal for all three, whose output is
 * that of descriptor 1. `timeout_ms` 0 means none. NULL with `error` when it did not start. */
struct job *job_start(struct spawn *what, bool with_stdin, uint64_t timeout_ms,
                      const struct job_sink *sink, struct spawn_error *error);
pid_t job_pid(const struct job *job);
/* Input, at most STREAM_CREDIT_BYTES queued; false when it would be more. */
bool job_write(struct job *job, const uint8_t *data, size_t len);
/* Once; a terminal gets its end-of-file character instead, after what is queued. */
void job_close_stdin(struct job *job);
/* What the command has not taken yet. */
size_t job_queued(const struct job *job);
/* To the whole process group; with a terminal to the one in its foreground, and a kill to both. */
void job_signal(struct job *job, int signal);
/* False when it has no terminal. */
bool job_resize(struct job *job, struct pty_size size);
/* The sink has room again. */
void job_resume(struct job *job);
/* Nobody listens any more: the command goes on, its output is dropped, its input closed. */
void job_detach(struct job *job);
void job_kill_all(void);
/* "SIGKILL" for 9; a number without a name becomes "SIG<n>". */
const char *signal_name(int signal);

#endif
