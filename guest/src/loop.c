#include "loop.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <time.h>

#include "log.h"

#define EVENTS_MAX 64

static int epoll_fd = -1;
static bool stopping;
static struct timer *timers; /* sorted, the earliest first */
static struct epoll_event ready[EVENTS_MAX];
static int ready_count;
static int ready_at;

void loop_init(void) {
  if (epoll_fd >= 0) return;
  epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  if (epoll_fd < 0) log_fatal("epoll_create1: %s", strerror(errno));
}

uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

void loop_watch(struct watch *w, int fd, uint32_t events, void (*fn)(void *, uint32_t), void *arg) {
  *w = (struct watch){.fd = fd, .events = events, .fn = fn, .arg = arg, .active = true};
  struct epoll_event e = {.events = events, .data.ptr = w};
  if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e) < 0) {
    log_fatal("epoll_ctl add %d: %s", fd, strerror(errno));
  }
}

void loop_events(struct watch *w, uint32_t events) {
  if (!w->active || w->events == events) return;
  w->events = events;
  struct epoll_event e = {.events = events, .data.ptr = w};
  epoll_ctl(epoll_fd, EPOLL_CTL_MOD, w->fd, &e);
}

void loop_unwatch(struct watch *w) {
  if (!w->active) return;
  w->active = false;
  epoll_ctl(epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
  for (int i = ready_at; i < ready_count; i++) {
    if (ready[i].data.ptr == w) ready[i].data.ptr = NULL;
  }
}

void timer_set(struct timer *t, uint64_t ms, void (*fn)(void *), void *arg) {
  timer_clear(t);
  t->due_ns = now_ns() + ms * 1000000;
  t->fn = fn;
  t->arg = arg;
  t->armed = true;
  struct timer *prev = NULL;
  struct timer *next = timers;
  while (next && next->due_ns <= t->due_ns) {
    prev = next;
    next = next->next;
  }
  t->prev = prev;
  t->next = next;
  if (next) next->prev = t;
  if (prev) {
    prev->next = t;
  } else {
    timers = t;
  }
}

void timer_clear(struct timer *t) {
  if (!t->armed) return;
  t->armed = false;
  if (t->next) t->next->prev = t->prev;
  if (t->prev) {
    t->prev->next = t->next;
  } else {
    timers = t->next;
  }
}

static int wait_ms(int max_ms) {
  if (!timers) return max_ms;
  uint64_t now = now_ns();
  if (timers->due_ns <= now) return 0;
  uint64_t ms = (timers->due_ns - now + 999999) / 1000000;
  if (ms > 3600000) ms = 3600000;
  return max_ms >= 0 && (uint64_t)max_ms < ms ? max_ms : (int)ms;
}

void set_nonblocking(int fd) { fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK); }

void loop_once(int max_ms) {
  ready_at = 0;
  ready_count = epoll_wait(epoll_fd, ready, EVENTS_MAX, wait_ms(max_ms));
  while (ready_at < ready_count) {
    struct epoll_event *e = &ready[ready_at++];
    struct watch *w = e->data.ptr;
    if (w) w->fn(w->arg, e->events);
  }
  ready_count = 0;
  uint64_t now = now_ns();
  while (timers && timers->due_ns <= now) {
    struct timer *t = timers;
    timer_clear(t);
    t->fn(t->arg);
  }
}

void loop_run(void) {
  stopping = false;
  while (!stopping) loop_once(-1);
}

void loop_stop(void) { stopping = true; }
