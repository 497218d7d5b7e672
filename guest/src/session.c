#include "session.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base64.h"
#include "channel.h"
#include "deferred.h"
#include "eval.h"
#include "execs.h"
#include "files.h"
#include "gate.h"
#include "hold.h"
#include "identity.h"
#include "log.h"
#include "runtime.h"
#include "warm.h"

static uint64_t session = 1;
static bool attached; /* a token was seen; frames are taken */
static bool greeted;  /* hello was answered */
static struct buf reply;
static struct jw reply_writer;

static const struct {
  const char *name;
  op_fn *fn;
  bool gated;
} ops[] = {
    {"ping", op_ping, false},     {"identity", op_identity, false},
    {"warm", op_warm, false},     {"freeze", op_freeze, false},
    {"thaw", op_thaw, false},     {"exec", op_exec, true},
    {"eval", op_eval, true},      {"poweroff", op_poweroff, false},
    {"clock", op_clock, false},   {"hold", op_hold, false},
    {"exec_start", op_exec_start, true},
    {"exec_attach", op_exec_attach, true},
    {"exec_list", op_exec_list, false},
    {"exec_detach", op_exec_detach, true},
    {"exec_signal", op_exec_signal, true},
    {"exec_resize", op_exec_resize, true},
    {"exec_forget", op_exec_forget, true},
    {"file", op_file, true},
};

bool session_live(void) { return attached; }

struct jw *reply_begin(void) {
  if (!reply.max) buf_init(&reply, FRAME_PAYLOAD_BYTES_MAX);
  buf_clear(&reply);
  jw_init(&reply_writer, &reply);
  jw_open(&reply_writer, NULL, '{');
  return &reply_writer;
}

void reply_send(struct ticket ticket, uint8_t type) {
  jw_close(&reply_writer, '}');
  if (reply.overflow) {
    reply_error(ticket, "internal", "the answer is larger than a frame");
    return;
  }
  if (ticket.session == session) channel_frame(type, ticket.stream, buf_head(&reply), reply.len);
}

void reply_error(struct ticket ticket, const char *code, const char *format, ...) {
  char text[WARM_TAIL_BYTES + 1024];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  struct jw *w = reply_begin();
  jw_string(w, "code", code);
  jw_string(w, "message", text);
  reply_send(ticket, FRAME_ERROR);
}

void session_end(void) {
  if (attached) session++;
  attached = greeted = false;
  wire_scan(channel_wire());
  deferred_clear();
  streams_detach();
}

static void on_attached(void *arg) {
  (void)arg;
  session_end();
  channel_clear();
  channel_release();
  hold_attached();
  attached = true;
  channel_wire()->scanning = false;
}

static void on_broken(void *arg, const char *why) {
  (void)arg;
  log_line("session ended: %s", why);
  session_end();
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
    session_end();
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
  reply_send(ticket, FRAME_REPLY);
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
  for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
    if (strcmp(op, ops[i].name) != 0) continue;
    if (ops[i].gated && !gate_is_open()) {
      reply_error(ticket, "gate_closed", "%s: this guest waits for its identity", op);
      return;
    }
    ops[i].fn(ticket, request);
    return;
  }
  reply_error(ticket, "unknown_op", "unknown op: %.100s", op);
}

/* In a guest that goes on, what would start something waits until the hold is over; in one that is
 * forked the gate is closed. */
static bool must_wait(const struct json *request) {
  const char *op = json_get_string(request, "op");
  if (!op || !greeted || !hold_is_on() || !gate_is_open()) return false;
  for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
    if (strcmp(op, ops[i].name) == 0) return ops[i].gated;
  }
  return false;
}

static void defer(const struct frame *f) {
  if (deferred_add(f)) return;
  if (f->type == FRAME_REQUEST) {
    reply_error((struct ticket){f->stream, session}, "too_many_streams", "the guest is held");
  } else {
    on_broken(NULL, "too much input for a guest that is held");
  }
}

static void on_request(const struct frame *f) {
  struct ticket ticket = {f->stream, session};
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
  if (f->length > s->in_credit) {
    on_broken(NULL, "more input than was credited");
    return;
  }
  s->in_credit -= f->length;
  if (s->job) {
    exec_stdin(s, f->payload, f->length);
  } else if (s->exec) {
    exec_input(s->exec, f->payload, f->length);
  } else {
    eval_stdin(s, f->payload, f->length);
  }
}

static void on_window(const struct frame *f) {
  struct stream *s = stream_find(f->stream);
  if (!s) return;
  uint32_t more = le32(f->payload);
  s->credit = more > STREAM_CREDIT_BYTES_MAX - s->credit ? STREAM_CREDIT_BYTES_MAX
                                                         : s->credit + more;
  stream_resume(s);
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
  switch (f->type) {
    case FRAME_REQUEST: on_request(f); break;
    case FRAME_STDIN: on_stdin(f); break;
    case FRAME_WINDOW: on_window(f); break;
    case FRAME_SIGNAL: {
      struct stream *s = stream_find(f->stream);
      uint32_t number = le32(f->payload);
      if (s && s->job && number >= 1 && number <= 64) job_signal(s->job, (int)number);
      if (s && s->exec && number >= 1 && number <= 64) exec_signal(s->exec, (int)number);
      if (s && s->eval) eval_cancel(s->eval);
      break;
    }
    default: on_broken(NULL, "a frame of an unknown type");
  }
}

static void on_frame(void *arg, const struct frame *f) {
  (void)arg;
  take_frame(f);
}

void session_replay(void) { deferred_replay(take_frame); }

const struct wire_handler *session_wire(void) {
  static const struct wire_handler handler = {
      .attached = on_attached, .frame = on_frame, .broken = on_broken};
  return &handler;
}
