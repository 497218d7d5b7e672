/* The event loop: one thread, epoll for descriptors, one list of timers. */
#ifndef FORKD_LOOP_H
#define FORKD_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

struct watch {
  int fd;
  uint32_t events;
  void (*fn)(void *arg, uint32_t events);
  void *arg;
  bool active;
};

struct timer {
  uint64_t due_ns;
  void (*fn)(void *arg);
  void *arg;
  struct timer *prev;
  struct timer *next;
  bool armed;
};

void loop_init(void);
/* Watches `fd` with EPOLL events; `watch` is the caller's and must be zeroed before first use. */
void loop_watch(struct watch *w, int fd, uint32_t events, void (*fn)(void *, uint32_t), void *arg);
void loop_events(struct watch *w, uint32_t events);
/* What is watched must not block whoever reads or writes it. */
void set_nonblocking(int fd);
/* Safe inside callbacks: pending events of the watch are dropped. Does not close the descriptor. */
void loop_unwatch(struct watch *w);
void timer_set(struct timer *t, uint64_t ms, void (*fn)(void *), void *arg);
void timer_clear(struct timer *t);
/* Waits once, at most `max_ms` (-1: for ever), and serves what happened. */
void loop_once(int max_ms);
void loop_run(void);
void loop_stop(void);
/* CLOCK_MONOTONIC. It stands still while the guest is frozen. */
uint64_t now_ns(void);
static inline uint64_t now_ms(void) { return now_ns() / 1000000; }

#endif
