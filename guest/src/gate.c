#include "gate.h"

#include <unistd.h>

#include "channel.h"
#include "hold.h"
#include "identity.h"
#include "session.h"
#include "tcp.h"

static bool closed;
static uint64_t closings;

bool gate_is_open(void) { return !closed; }
uint64_t gate_closings(void) { return closings; }

void gate_open(void) {
  closed = false;
  tcp_accept(true);
}

void gate_close(void) {
  closed = true;
  closings++;
  tcp_accept(false);
}

void op_freeze(struct ticket ticket, const struct json *request) {
  (void)request;
  /* Not on a development host, where it would wait for everybody's writes. */
  if (getpid() == 1) sync();
  gate_close();
  identity_prepare();
  reply_begin();
  reply_send(ticket, FRAME_REPLY);
  channel_hold();
}

void op_thaw(struct ticket ticket, const struct json *request) {
  (void)request;
  uint64_t left_ms = hold_left_ms();
  channel_release();
  gate_open();
  hold_end();
  struct jw *w = reply_begin();
  jw_int(w, "hold_left_ms", (int64_t)left_ms);
  reply_send(ticket, FRAME_REPLY);
}
