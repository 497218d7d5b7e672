#include "hold.h"

#include <stddef.h>

#include "bounds.h"
#include "cells.h"
#include "log.h"
#include "loop.h"

static struct {
  bool on;
  bool settled; /* all stand still, the request is answered */
  bool kept;    /* a host attached: there is no bound any more, and nobody waits for the answer */
  uint64_t max_ms;
  struct timer deadline; /* of the stopping, then of the hold */
  void (*tell)(enum hold_news news);
  void (*after)(void);
} hold;

bool hold_is_on(void) { return hold.on; }

uint64_t hold_left_ms(void) {
  uint64_t now = now_ns();
  bool counts = hold.on && hold.settled && hold.deadline.armed && hold.deadline.due_ns > now;
  return counts ? (hold.deadline.due_ns - now) / 1000000 : 0;
}

void hold_ends_by(void (*after)(void)) { hold.after = after; }

bool hold_keep(void) {
  if (!hold.on) return false;
  hold.kept = true;
  timer_clear(&hold.deadline);
  return true;
}

void hold_end(void) {
  if (!hold.on) return;
  hold.on = hold.settled = hold.kept = false;
  timer_clear(&hold.deadline);
  cells_thaw();
  hold.after();
}

static void on_expired(void *arg) {
  (void)arg;
  log_line("the hold ends: nobody did for %llu ms", (unsigned long long)hold.max_ms);
  hold_end();
  hold.tell(HOLD_EXPIRED);
}

static void on_stopped(void) {
  hold.settled = true;
  if (hold.kept) return;
  timer_set(&hold.deadline, hold.max_ms, on_expired, NULL);
  hold.tell(HOLD_SETTLED);
}

static void on_stuck(void *arg) {
  (void)arg;
  hold_end();
  hold.tell(HOLD_STUCK);
}

const char *hold_begin(uint64_t max_ms, void (*tell)(enum hold_news news)) {
  hold.max_ms = max_ms;
  hold.tell = tell;
  const char *why = cells_freeze(on_stopped);
  if (why) return why;
  hold.on = true;
  timer_set(&hold.deadline, HOLD_STOP_MS, on_stuck, NULL);
  return NULL;
}
