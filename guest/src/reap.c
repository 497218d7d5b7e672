#include "reap.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "buf.h"
#include "log.h"
#include "loop.h"

struct waiter {
  struct waiter *next;
  pid_t pid;
  void (*fn)(void *arg, int status);
  void *arg;
};

static struct waiter *waiters;
static struct watch signal_watch;

static struct waiter *take_waiter(pid_t pid) {
  for (struct waiter **at = &waiters; *at; at = &(*at)->next) {
    if ((*at)->pid != pid) continue;
    struct waiter *w = *at;
    *at = w->next;
    return w;
  }
  return NULL;
}

static void reap_all(void *arg, uint32_t events) {
  (void)arg;
  (void)events;
  struct signalfd_siginfo info[8];
  while (read(signal_watch.fd, info, sizeof info) > 0) continue;
  int status;
  pid_t pid;
  while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
    struct waiter *w = take_waiter(pid);
    if (!w) continue;
    w->fn(w->arg, status);
    free(w);
  }
}

void reap_init(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  sigprocmask(SIG_BLOCK, &set, NULL);
  signal(SIGPIPE, SIG_IGN);
  int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  if (fd < 0) log_fatal("signalfd: %s", strerror(errno));
  loop_watch(&signal_watch, fd, EPOLLIN, reap_all, NULL);
}

void reap_on(pid_t pid, void (*fn)(void *arg, int status), void *arg) {
  struct waiter *w = xalloc(sizeof *w);
  *w = (struct waiter){.next = waiters, .pid = pid, .fn = fn, .arg = arg};
  waiters = w;
}

void reap_forget(pid_t pid) { free(take_waiter(pid)); }
