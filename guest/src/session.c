#include "session.h"

#include <stdlib.h>
#include <string.h>

#include "base64.h"
#include "channel.h"
#include "deferred.h"
#include "eval.h"
#include "files.h"
#include "gate.h"
#include "hold.h"
#include "identity.h"
#include "log.h"
#include "op-table.h"
#include "runtime.h"
#include "stream.h"
#include "tcp.h"
#include "warm.h"

static bool greeted; /* hello was answered */

static void session_over(void) {
  reply_session_over();
  greeted = false;
  channel_detach();
  deferred_clear();
  streams_detach();
}

static void on_attached(void *arg) {
  (void)arg;
  session_over();
  channel_clear();
  channel_release();
  /* This may be a fork, with nobody to end the hold but its identity. */
  if (hold_keep()) gate_close();
  channel_attach();
}

static void on_broken(void *arg, const char *why) {
  (void)arg;
  log_line("session ended: %s", why);
  session_over();
}

/* Decodes a member of exactly 16 bytes. */
static bool bytes16(const struct json *request, const char *key, uint8_t out[TOKEN_BYTES]) {
  const struct json *v = json_get(request, key);
  if (!v || v->type != JSON_STRING) return false;
  return base64_decode(v->str, v->len, out, TOKEN_BYTES) == TOKEN_BYTES;
}

/* Read once: the same in all forks, and the first answer of a fork is in a hurry. */
static const char *boot_id(void) {
  static char *text;
  if (!text) text = file_read("/proc/sys/kernel/random/boot_id", 64, NULL);
  if (!text) return "";
  text[strcspn(text, "\n")] = 0;
  return text;
}

static void hello(struct ticket ticket, const struct json *request) {
  uint8_t echo[TOKEN_BYTES];
  uint8_t next[TOKEN_BYTES];
  uint64_t protocol;
  if (!bytes16(request, "echo_b64", echo)) {
    log_line("session ended: hello without a valid echo");
    session_over();
    return;
  }
  channel_raw(echo, sizeof echo);
  if (!bytes16(request, "next_token_b64", next)) {
    reply_error(ticket, "bad_request", "hello: next_token_b64 must be 16 bytes");
    return;
  }
  if (!json_get_uint(request, "protocol", 1000, &protocol) || protocol != PROTOCOL_VERSION) {
    reply_error(ticket, "bad_protocol", "hello: this agent speaks protocol %d", PROTOCOL_VERSION);
    return;
  }
  wire_set_token(channel_wire(), next);
  greeted = true;
  struct jw *w = reply_begin();
  jw_int(w, "protocol", PROTOCOL_VERSION);
  jw_string(w, "agent", AGENT_VERSION);
  jw_string(w, "boot_id", boot_id());
  jw_int(w, "generation", (int64_t)identity_generation());
  jw_string(w, "gate", gate_is_open() ? "open" : "closed");
  jw_bool(w, "held", hold_is_on());
  jw_string(w, "warm", warm_state());
  jw_string(w, "runtime", runtime_name());
  reply_send(ticket);
}

static void dispatch(struct ticket ticket, const struct json *request) {
  const char *op = json_get_string(request, "op");
  if (!op) {
    reply_error(ticket, "bad_request", "the request has no op");
    return;
  }
  if (strcmp(op, "hello") == 0) {
    hello(ticket, request);
    return;
  }
  if (!greeted) {
    reply_error(ticket, "bad_request", "the first request of a session must be hello");
    return;
  }
  const struct op *known = op_find(op);
  if (!known) {
    reply_error(ticket, "unknown_op", "unknown op: %.100s", op);
  } else if (known->gated && !gate_is_open()) {
    reply_error(ticket, "gate_closed", "%s: this guest waits for its identity", op);
  } else {
    known->run(ticket, request);
  }
}

/* In a guest that goes on, what would start something waits until the hold is over; in one that is
 * forked the gate is closed. */
static bool must_wait(const struct json *request) {
  const char *op = json_get_string(request, "op");
  if (!op || !greeted || !hold_is_on() || !gate_is_open()) return false;
  const struct op *known = op_find(op);
  return known && known->gated;
}

static void defer(const struct frame *f) {
  if (deferred_add(f)) return;
  if (f->type == FRAME_REQUEST) {
    reply_error(reply_ticket(f->stream), "too_many_streams", "the guest is held");
  } else {
    on_broken(NULL, "too much input for a guest that is held");
  }
}

static void on_request(const struct frame *f) {
  struct ticket ticket = reply_ticket(f->stream);
  struct json_doc doc;
  if (json_parse(&doc, (const char *)f->payload, f->length) < 0) {
    reply_error(ticket, "bad_request", "the request is not valid JSON");
    return;
  }
  if (must_wait(doc.root)) {
    defer(f);
  } else {
    dispatch(ticket, doc.root);
  }
  json_free(&doc);
}

static void on_stdin(const struct frame *f) {
  struct stream *s = stream_find(f->stream);
  /* Input may cross with the last frame of its stream. */
  if (!s) return;
  if (!stream_input(s, f->payload, f->length)) on_broken(NULL, "more input than was credited");
}

static void take_frame(const struct frame *f) {
  if (deferred_has(f->stream)) {
    defer(f);
    return;
  }
  bool word = f->type == FRAME_WINDOW || f->type == FRAME_SIGNAL;
  if (word && f->length != 4) {
    on_broken(NULL, "a window or signal frame is not 4 bytes");
    return;
  }
  struct stream *s = word ? stream_find(f->stream) : NULL;
  switch (f->type) {
    case FRAME_REQUEST: on_request(f); break;
    case FRAME_STDIN: on_stdin(f); break;
    case FRAME_WINDOW:
      if (s) stream_window(s, le32(f->payload));
      break;
    case FRAME_SIGNAL:
      if (s) stream_signal(s, le32(f->payload));
      break;
    default: on_broken(NULL, "a frame of an unknown type");
  }
}

static void on_frame(void *arg, const struct frame *f) {
  (void)arg;
  take_frame(f);
}

/* What waited for the end of a hold: the host's frames come last, they may start anything. */
static void after_hold(void) {
  tcp_accept(gate_is_open());
  tcp_resume();
  eval_after_hold();
  deferred_replay(take_frame);
}

void session_start(int fd, bool ends) {
  static const struct channel_owner owner = {
      .wire = {.attached = on_attached, .frame = on_frame, .broken = on_broken},
      .lost = session_over,
      .room = streams_resume,
  };
  hold_ends_by(after_hold);
  channel_start(fd, ends, &owner);
}
