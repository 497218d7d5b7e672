/*
 * The thread that can always resume the VM, whatever the main thread hangs in: a disk, a lock, the
 * VMM. It alone reads stdin and the signals. The main thread looks at what it decided between its
 * steps; when it does not for too long, this thread ends the program.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "capture.h"

enum {
  /* Without a budget of the caller; nobody wants a guest to stand longer than this. */
  pause_ms_max = 30000,
  /* From the request to end until the main thread must have ended the program. */
  last_resort_ms = 15000,
  /* The caller holds the guest between `ready` and `go`, which takes milliseconds. */
  go_wait_s = 60,
};

static const char cont_line[] = "{\"execute\":\"cont\",\"id\":\"guard\"}\r\n";

static struct {
  pthread_mutex_t lock;
  pthread_cond_t changed;
  uint64_t max_pause_ms;
  int monitor_fd;
  int signal_fd;
  int timer_fd;
  /* Readable from the moment that the program is to end. */
  int end_fd;
  bool go;
  /* `stop` is sent and `cont` is not. */
  bool stopped;
  bool has_stopped;
  /* When the pause is over its budget, by now_us. */
  uint64_t resume_by_us;
  /* Why the program is to end; NULL while it is not. */
  const char *code;
  const char *reason;
} guard = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER,
           .monitor_fd = -1};

static void arm(uint64_t ms) {
  struct itimerspec at = {.it_value = {.tv_sec = (time_t)(ms / 1000),
                                       .tv_nsec = (long)(ms % 1000) * 1000000L}};
  timerfd_settime(guard.timer_fd, 0, &at, NULL);
}

static bool send_all(const char *line) {
  for (size_t length = strlen(line); length > 0;) {
    ssize_t sent = send(guard.monitor_fd, line, length, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return false;
    line += sent;
    length -= (size_t)sent;
  }
  return true;
}

static void resume_locked(void) {
  if (!guard.stopped) return;
  guard.stopped = false;
  send_all(cont_line);
  arm(guard.code == NULL ? 0 : last_resort_ms);
}

/* The first reason stays. */
static void want_end(const char *code, const char *reason) {
  pthread_mutex_lock(&guard.lock);
  if (guard.code == NULL) {
    guard.code = code;
    guard.reason = reason;
    arm(last_resort_ms);
    eventfd_write(guard.end_fd, 1);
  }
  resume_locked();
  pthread_cond_broadcast(&guard.changed);
  pthread_mutex_unlock(&guard.lock);
}

static void end_as_last_resort(void) {
  remove_own_files();
  report_error(guard.code, "the capture hung and was given up", "\"running\":false,\"pivoted\":0");
  _exit(1);
}

static const char over_budget[] = "the guest was paused for longer than its budget";

static void on_timer(void) {
  uint64_t expirations;
  if (read(guard.timer_fd, &expirations, sizeof expirations) < 0) return;
  pthread_mutex_lock(&guard.lock);
  bool late = guard.code != NULL;
  bool stopped = guard.stopped;
  pthread_mutex_unlock(&guard.lock);
  if (late) end_as_last_resort();
  if (stopped) want_end(CODE_BUDGET, over_budget);
}

/* Lines of the caller; the only one is `go`. False at the end of the input. */
static bool on_input(void) {
  char bytes[64];
  ssize_t got = read(STDIN_FILENO, bytes, sizeof bytes);
  if (got <= 0) return got < 0 && errno == EINTR;
  if (memchr(bytes, '\n', (size_t)got) == NULL) return true;
  pthread_mutex_lock(&guard.lock);
  guard.go = true;
  pthread_cond_broadcast(&guard.changed);
  pthread_mutex_unlock(&guard.lock);
  return true;
}

static noreturn void *run(void *unused) {
  (void)unused;
  struct pollfd fds[] = {{.fd = guard.timer_fd, .events = POLLIN},
                         {.fd = guard.signal_fd, .events = POLLIN},
                         {.fd = STDIN_FILENO, .events = POLLIN}};
  for (;;) {
    if (poll(fds, sizeof fds / sizeof *fds, -1) < 0) continue;
    if (fds[0].revents != 0) on_timer();
    if (fds[1].revents != 0) {
      want_end(CODE_ABORTED, "a signal asked for the end");
      fds[1].fd = -1;
    }
    if (fds[2].revents != 0 && !on_input()) {
      want_end(CODE_ABORTED, "the caller has gone");
      fds[2].fd = -1;
    }
  }
}

static void block_signals(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &set, NULL);
  signal(SIGPIPE, SIG_IGN);
  guard.signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
}

void guard_start(uint64_t max_pause_ms) {
  guard.max_pause_ms = max_pause_ms == 0 ? pause_ms_max : max_pause_ms;
  block_signals();
  guard.timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
  guard.end_fd = eventfd(0, EFD_CLOEXEC);
  bool opened = guard.signal_fd >= 0 && guard.timer_fd >= 0 && guard.end_fd >= 0;
  if (!opened) fail_errno("start", "the guard");
  pthread_t thread;
  if (pthread_create(&thread, NULL, run, NULL) != 0) fail(CODE_SYSTEM, "no thread for the guard");
  pthread_detach(thread);
}

int guard_end_fd(void) { return guard.end_fd; }

void guard_watch(int monitor_fd) {
  pthread_mutex_lock(&guard.lock);
  guard.monitor_fd = monitor_fd;
  pthread_mutex_unlock(&guard.lock);
}

bool guard_send(const char *line) {
  pthread_mutex_lock(&guard.lock);
  bool sent = send_all(line);
  pthread_mutex_unlock(&guard.lock);
  return sent;
}

/* On a busy host the guard's thread may get its turn late: the clock is looked at here as well. */
void guard_check(void) {
  pthread_mutex_lock(&guard.lock);
  bool late = guard.stopped && now_us() > guard.resume_by_us;
  pthread_mutex_unlock(&guard.lock);
  if (late) want_end(CODE_BUDGET, over_budget);
  pthread_mutex_lock(&guard.lock);
  const char *code = guard.code;
  const char *reason = guard.reason;
  pthread_mutex_unlock(&guard.lock);
  if (code != NULL) fail(code, "%s", reason);
}

void guard_await_go(void) {
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += go_wait_s;
  int waited = 0;
  pthread_mutex_lock(&guard.lock);
  while (!guard.go && guard.code == NULL && waited == 0) {
    waited = pthread_cond_timedwait(&guard.changed, &guard.lock, &until);
  }
  bool go = guard.go;
  pthread_mutex_unlock(&guard.lock);
  guard_check();
  if (!go) fail(CODE_ABORTED, "no word to go on came in %d s", go_wait_s);
}

/* Under the lock: either the guard sees that the VM is stopped, or `stop` is never sent. */
void guard_stop(void) {
  pthread_mutex_lock(&guard.lock);
  bool sent = false;
  bool wanted = guard.code == NULL;
  if (wanted) {
    guard.stopped = true;
    guard.has_stopped = true;
    guard.resume_by_us = now_us() + guard.max_pause_ms * 1000;
    arm(guard.max_pause_ms);
    sent = send_all("{\"execute\":\"stop\",\"id\":\"" STOP_ID "\"}\r\n");
  }
  pthread_mutex_unlock(&guard.lock);
  guard_check();
  if (!sent) fail(CODE_MONITOR, "the monitor does not take commands");
}

void guard_resume(void) {
  pthread_mutex_lock(&guard.lock);
  resume_locked();
  pthread_mutex_unlock(&guard.lock);
}

bool guard_has_stopped(void) {
  pthread_mutex_lock(&guard.lock);
  bool has = guard.has_stopped;
  pthread_mutex_unlock(&guard.lock);
  return has;
}
