#include <unistd.h>

#include "channel.h"
#include "gate.h"
#include "hold.h"
#include "identity.h"
#include "op.h"

void op_freeze(struct ticket ticket, const struct json *request) {
  (void)request;
  /* Not on a development host, where it would wait for everybody's writes. */
  if (getpid() == 1) sync();
  gate_close();
  identity_prepare();
  reply_empty(ticket);
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
  reply_send(ticket);
}
