#include "job.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "buf.h"
#include "bounds.h"
#include "loop.h"
#include "reap.h"

/* What a pipe can hold by default: as much is still read after the wait for its end is over. */
#define PIPE_BYTES 65536

struct output {
  struct job *job;
  struct watch watch;
  int which;
  int fd; /* -1 once at its end */
  size_t drain_left;
};

struct job {
  struct job *prev;
  struct job *next;
  pid_t pid;
  bool dead;
  bool linger_over;
  bool finished;
  int status;
  bool timed_out;
  uint64_t started_ns;
  uint64_t ended_ns;
  struct output out[2];
  int in_fd;
  struct watch in_watch;
  struct buf in;
  bool in_closing;
  bool tty;
  bool end_queued; /* the last byte of `in` is the end of file, nobody's input */
  struct timer deadline;
  struct timer linger;
  struct job_sink sink;
};

static struct job *jobs;
static void on_output(void *arg, uint32_t events);

const char *signal_name(int signal) {
  static char text[32];
  const char *name = sigabbrev_np(signal);
  if (name) {
    snprintf(text, sizeof text, "SIG%s", name);
  } else {
    snprintf(text, sizeof text, "SIG%d", signal);
  }
  return text;
}

static size_t room_of_nobody(void *arg) {
  (void)arg;
  return SIZE_MAX;
}

static void close_output(struct output *o) {
  if (o->fd < 0) return;
  loop_unwatch(&o->watch);
  close(o->fd);
  o->fd = -1;
}

static void close_input(struct job *j) {
  if (j->in_fd < 0) return;
  loop_unwatch(&j->in_watch);
  close(j->in_fd);
  j->in_fd = -1;
}

static void finish(struct job *j) {
  if (j->finished || !j->dead || j->out[0].fd >= 0 || j->out[1].fd >= 0) return;
  j->finished = true;
  timer_clear(&j->linger);
  timer_clear(&j->deadline);
  close_input(j);
  struct job_result r = {.timed_out = j->timed_out, .exit_code = -1};
  if (WIFSIGNALED(j->status)) r.signal = WTERMSIG(j->status);
  if (WIFEXITED(j->status)) r.exit_code = WEXITSTATUS(j->status);
  r.duration_ms = (double)(j->ended_ns - j->started_ns) / 1e6;
  if (j->sink.done) j->sink.done(j->sink.arg, &r);
  if (j->prev) j->prev->next = j->next;
  if (j->next) j->next->prev = j->prev;
  if (jobs == j) jobs = j->next;
  buf_free(&j->in);
  free(j);
}

/* Hands on what the pipe holds; a few chunks at a time, so that no command starves the others. */
static void pump(struct output *o) {
  struct job *j = o->job;
  static uint8_t chunk[OUTPUT_CHUNK_BYTES];
  for (int i = 0; i < 4 && o->fd >= 0; i++) {
    size_t room = j->sink.room(j->sink.arg);
    if (room == 0) {
      /* Not watched at all: a pipe at its end would report that again and again. */
      loop_unwatch(&o->watch);
      return;
    }
    size_t want = room < sizeof chunk ? room : sizeof chunk;
    if (j->linger_over && want > o->drain_left) want = o->drain_left;
    ssize_t n = want ? read(o->fd, chunk, want) : 0;
    if (n > 0) {
      if (j->linger_over) o->drain_left -= (size_t)n;
      if (j->sink.output) j->sink.output(j->sink.arg, o->which, chunk, (size_t)n);
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR) || j->linger_over) {
      close_output(o);
    } else {
      break;
    }
  }
  if (o->fd >= 0 && !o->watch.active) loop_watch(&o->watch, o->fd, EPOLLIN, on_output, o);
}

static void on_output(void *arg, uint32_t events) {
  (void)events;
  struct output *o = arg;
  pump(o);
  finish(o->job);
}

static void on_linger(void *arg) {
  struct job *j = arg;
  j->linger_over = true;
  for (int i = 0; i < 2; i++) {
    j->out[i].drain_left = PIPE_BYTES;
    pump(&j->out[i]);
  }
  finish(j);
}

static void on_exit_status(void *arg, int status) {
  struct job *j = arg;
  j->dead = true;
  j->status = status;
  j->ended_ns = now_ns();
  timer_clear(&j->deadline);
  close_input(j);
  /* Mostly the outputs end with the process: then there is nothing to wait for. */
  for (int i = 0; i < 2; i++) {
    if (j->out[i].fd >= 0) pump(&j->out[i]);
  }
  if (j->out[0].fd >= 0 || j->out[1].fd >= 0) {
    timer_set(&j->linger, EXEC_LINGER_MS, on_linger, j);
  }
  finish(j);
}

static void on_deadline(void *arg) {
  struct job *j = arg;
  j->timed_out = true;
  job_signal(j, SIGKILL);
}

static void on_input(void *arg, uint32_t events) {
  struct job *j = arg;
  size_t taken = 0;
  bool gone = events & (EPOLLERR | EPOLLHUP);
  while (gone || j->in.len > 0) {
    ssize_t n = gone ? -1 : write(j->in_fd, buf_head(&j->in), j->in.len);
    if (n < 0 && !gone && errno == EAGAIN) break;
    if (n < 0) {
      taken += j->in.len;
      buf_clear(&j->in);
      j->in_closing = true;
      break;
    }
    buf_consume(&j->in, (size_t)n);
    taken += (size_t)n;
  }
  if (j->end_queued && j->in.len == 0) {
    j->end_queued = false;
    taken--;
  }
  if (j->in.len == 0 && j->in_closing) close_input(j);
  if (j->in_fd >= 0) loop_events(&j->in_watch, j->in.len ? EPOLLOUT : 0);
  if (taken && j->sink.took) j->sink.took(j->sink.arg, taken);
}

/* A terminal for all three. Input has a descriptor of its own, as a pipe's, to be watched by. */
static bool open_terminal(int pipes[3][2], const struct spawn *what) {
  int master;
  int other;
  if (!pty_open(what->size, what->user->uid, &master, &other)) return false;
  pipes[1][0] = master;
  pipes[0][0] = other;
  pipes[0][1] = fcntl(master, F_DUPFD_CLOEXEC, 3);
  pipes[1][1] = fcntl(other, F_DUPFD_CLOEXEC, 3);
  pipes[2][1] = fcntl(other, F_DUPFD_CLOEXEC, 3);
  set_nonblocking(master); /* of the file, so of the copy too */
  return pipes[0][1] >= 0 && pipes[1][1] >= 0 && pipes[2][1] >= 0;
}

static bool open_pipes(int pipes[3][2], bool with_stdin, const struct spawn *what) {
  for (int i = 0; i < 3; i++) pipes[i][0] = pipes[i][1] = -1;
  if (what->tty) return open_terminal(pipes, what);
  for (int i = with_stdin ? 0 : 1; i < 3; i++) {
    if (pipe2(pipes[i], O_CLOEXEC) < 0) return false;
    set_nonblocking(pipes[i][i == 0 ? 1 : 0]);
  }
  return true;
}

static void close_pipes(int pipes[3][2]) {
  for (int i = 0; i < 6; i++) {
    if (pipes[i / 2][i % 2] >= 0) close(pipes[i / 2][i % 2]);
  }
}

struct job *job_start(struct spawn *what, bool with_stdin, uint64_t timeout_ms,
                      const struct job_sink *sink, struct spawn_error *error) {
  int pipes[3][2];
  with_stdin = with_stdin || what->tty;
  if (!open_pipes(pipes, with_stdin, what)) {
    *error = (struct spawn_error){SPAWN_FDS_STAGE, errno};
    close_pipes(pipes);
    return NULL;
  }
  what->fds[0] = pipes[0][0];
  what->fds[1] = pipes[1][1];
  what->fds[2] = pipes[2][1];
  what->fds[3] = -1;
  uint64_t started_ns = now_ns();
  pid_t pid = spawn(what, error);
  if (pid < 0) {
    close_pipes(pipes);
    return NULL;
  }
  if (with_stdin) close(pipes[0][0]);
  close(pipes[1][1]);
  close(pipes[2][1]);

  struct job *j = xalloc(sizeof *j);
  j->pid = pid;
  j->started_ns = started_ns;
  j->sink = *sink;
  j->tty = what->tty;
  j->in_fd = with_stdin ? pipes[0][1] : -1;
  buf_init(&j->in, STREAM_CREDIT_BYTES + 1); /* and an end of file */
  j->next = jobs;
  if (jobs) jobs->prev = j;
  jobs = j;
  reap_on(pid, on_exit_status, j);
  if (timeout_ms) timer_set(&j->deadline, timeout_ms, on_deadline, j);
  if (with_stdin) loop_watch(&j->in_watch, j->in_fd, 0, on_input, j);
  for (int i = 0; i < 2; i++) {
    struct output *o = &j->out[i];
    *o = (struct output){.job = j, .which = i + 1, .fd = pipes[i + 1][0]};
    if (o->fd >= 0) loop_watch(&o->watch, o->fd, EPOLLIN, on_output, o);
  }
  return j;
}

pid_t job_pid(const struct job *j) { return j->pid; }

bool job_write(struct job *j, const uint8_t *data, size_t len) {
  if (j->in_fd < 0 || j->in_closing) {
    /* The command has closed its input: taken and dropped, as a pipe would. */
    if (j->sink.took) j->sink.took(j->sink.arg, len);
    return true;
  }
  if (!buf_add(&j->in, data, len)) return false;
  on_input(j, 0);
  return true;
}

size_t job_queued(const struct job *j) { return j->in.len - (j->end_queued ? 1 : 0); }

void job_close_stdin(struct job *j) {
  if (j->in_closing) return;
  j->in_closing = true;
  if (j->tty && j->in_fd >= 0) {
    static const uint8_t end = PTY_END_OF_INPUT;
    j->end_queued = buf_add(&j->in, &end, 1);
    on_input(j, 0);
    return;
  }
  if (j->in_fd >= 0 && j->in.len == 0) close_input(j);
}

void job_signal(struct job *j, int signal) {
  pid_t front = j->tty && j->out[0].fd >= 0 ? pty_foreground(j->out[0].fd) : 0;
  if (front > 1) kill(-front, signal);
  if (j->pid > 1 && !j->dead && front != j->pid && (front <= 1 || signal == SIGKILL)) {
    kill(-j->pid, signal);
  }
}

bool job_resize(struct job *j, struct pty_size size) {
  return j->tty && (j->out[0].fd < 0 || pty_resize(j->out[0].fd, size));
}

void job_resume(struct job *j) {
  for (int i = 0; i < 2; i++) {
    if (j->out[i].fd >= 0 && !j->out[i].watch.active) pump(&j->out[i]);
  }
  finish(j);
}

void job_detach(struct job *j) {
  j->sink = (struct job_sink){.room = room_of_nobody};
  close_input(j);
  job_resume(j);
}

void job_kill_all(void) {
  for (struct job *j = jobs; j; j = j->next) job_signal(j, SIGKILL);
}
