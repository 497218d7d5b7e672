#include "hold.h"

#include "bounds.h"
#include "cells.h"
#include "channel.h"
#include "eval.h"
#include "gate.h"
#include "identity.h"
#include "log.h"
#include "loop.h"
#include "session.h"
#include "tcp.h"

static struct {
  bool on;
  bool settled; /* all stand still, the request is answered */
  bool kept;    /* a host attached: there is no bound any more, and nobody waits for the answer */
  struct ticket ticket;
  uint64_t max_ms;
  struct timer deadline; /* of the stopping, then of the hold */
} hold;

bool hold_is_on(void) { return hold.on; }

uint64_t hold_left_ms(void) {
  uint64_t now = now_ns();
  bool counts = hold.on && hold.settled && hold.deadline.armed && hold.deadline.due_ns > now;
  return counts ? (hold.deadline.due_ns - now) / 1000000 : 0;
}

void hold_attached(void) {
  if (!hold.on) return;
  hold.kept = true;
  timer_clear(&hold.deadline);
  gate_close();
}

void hold_end(void) {
  if (!hold.on) return;
  hold.on = hold.settled = hold.kept = false;
  timer_clear(&hold.deadline);
  cells_thaw();
  tcp_accept(gate_is_open());
  tcp_resume();
  eval_resume_restart();
  session_replay();
}

static void on_expired(void *arg) {
  (void)arg;
  log_line("the hold ends: nobody did for %llu ms", (unsigned long long)hold.max_ms);
  hold_end();
  channel_release();
}

static void on_stopped(void) {
  hold.settled = true;
  if (hold.kept) return;
  timer_set(&hold.deadline, hold.max_ms, on_expired, NULL);
  reply_begin();
  reply_send(hold.ticket, FRAME_REPLY);
  channel_hold();
}

static void on_stuck(void *arg) {
  (void)arg;
  hold_end();
  reply_error(hold.ticket, "hold_failed", "hold: a process did not stop in %d ms", HOLD_STOP_MS);
}

void op_hold(struct ticket ticket, const struct json *request) {
  uint64_t max_ms;
  if (!json_get_uint(request, "max_ms", HOLD_MS_MAX, &max_ms) || max_ms < HOLD_MS_MIN) {
    reply_error(ticket, "bad_request", "hold: max_ms must be %d to %d", HOLD_MS_MIN, HOLD_MS_MAX);
    return;
  }
  if (hold.on || !gate_is_open()) {
    reply_error(ticket, "busy", "hold: the guest is held or frozen already");
    return;
  }
  identity_prepare();
  hold.ticket = ticket;
  hold.max_ms = max_ms;
  const char *why = cells_freeze(on_stopped);
  if (why) {
    reply_error(ticket, "hold_failed", "hold: %s", why);
    return;
  }
  hold.on = true;
  tcp_accept(false);
  timer_set(&hold.deadline, HOLD_STOP_MS, on_stuck, NULL);
}
