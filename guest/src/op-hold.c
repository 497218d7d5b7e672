#include "bounds.h"
#include "channel.h"
#include "gate.h"
#include "hold.h"
#include "identity.h"
#include "op.h"
#include "tcp.h"

static struct ticket asked; /* by whom the hold was */

static void tell(enum hold_news news) {
  switch (news) {
    case HOLD_SETTLED:
      reply_empty(asked);
      channel_hold();
      break;
    case HOLD_STUCK:
      reply_error(asked, "hold_failed", "hold: a process did not stop in %d ms", HOLD_STOP_MS);
      break;
    case HOLD_EXPIRED: channel_release(); break;
  }
}

void op_hold(struct ticket ticket, const struct json *request) {
  uint64_t max_ms;
  if (!json_get_uint(request, "max_ms", HOLD_MS_MAX, &max_ms) || max_ms < HOLD_MS_MIN) {
    reply_error(ticket, "bad_request", "hold: max_ms must be %d to %d", HOLD_MS_MIN, HOLD_MS_MAX);
    return;
  }
  if (hold_is_on() || !gate_is_open()) {
    reply_error(ticket, "busy", "hold: the guest is held or frozen already");
    return;
  }
  identity_prepare();
  asked = ticket;
  const char *why = hold_begin(max_ms, tell);
  if (why) {
    reply_error(ticket, "hold_failed", "hold: %s", why);
    return;
  }
  tcp_accept(false);
}
