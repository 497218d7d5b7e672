#include <string.h>

#include "channel.h"
#include "eval.h"
#include "session.h"

static size_t room(void *arg) { return stream_room(arg); }

static void output(void *arg, int which, const uint8_t *data, size_t len) {
  stream_output(arg, which, data, len);
}

/* Sends a long text as events, cut between characters. */
static void send_pieces(struct stream *s, const char *name, struct text text) {
  /* Half a frame's worth at most: escapes can make a piece several times longer. */
  const size_t piece_max = RESULT_PIECE_BYTES / 4;
  while (text.len > 0) {
    size_t n = text.len < piece_max ? text.len : piece_max;
    while (n < text.len && n > 1 && ((uint8_t)text.data[n] & 0xc0) == 0x80) n--;
    struct jw *w = reply_begin();
    jw_string(w, "event", name);
    jw_text(w, "part", text.data, n);
    reply_send(s->ticket, FRAME_EVENT);
    text.data += n;
    text.len -= n;
  }
}

static void put(struct jw *w, const char *key, struct text text) {
  if (text.data) {
    jw_text(w, key, text.data, text.len);
  } else {
    jw_null(w, key);
  }
}

/* What goes in the reply itself: all of it, or nothing once it was sent in pieces. */
static struct text inlined(struct stream *s, const char *name, struct text text, size_t *left) {
  if (!text.data || text.len <= *left) {
    *left -= text.data ? text.len : 0;
    return text;
  }
  send_pieces(s, name, text);
  return (struct text){NULL, 0};
}

static void done(void *arg, const struct eval_result *r) {
  struct stream *s = arg;
  if (r->failure) {
    reply_error(s->ticket, r->failure, "%s", r->error.data ? r->error.data : "");
    stream_close(s);
    return;
  }
  /* All texts of one reply share what is surely within a frame, however they are escaped. */
  size_t left = RESULT_PIECE_BYTES / 4;
  struct text error = r->error;
  if (error.len > 2048) error.len = 2048;
  struct text result = inlined(s, "result", r->result, &left);
  struct text result_json = inlined(s, "result_json", r->result_json, &left);
  struct text traceback = inlined(s, "traceback", r->traceback, &left);
  struct jw *w = reply_begin();
  jw_bool(w, "ok", r->ok);
  put(w, "result", result);
  put(w, "result_json", result_json);
  put(w, "error", error);
  put(w, "traceback", traceback);
  jw_bool(w, "timed_out", r->timed_out);
  jw_ms(w, "duration_ms", r->duration_ms);
  reply_send(s->ticket, FRAME_REPLY);
  stream_close(s);
}

static void submit(struct stream *s) {
  struct eval_sink sink = {room, output, done, s};
  const char *error;
  s->eval = eval_submit(buf_head(&s->code), s->code.len, s->timeout_ms, &sink, &error);
  if (s->eval) {
    buf_free(&s->code);
    return;
  }
  const char *why = strcmp(error, "no_runtime") == 0 ? "this guest has no warm interpreter"
                    : strcmp(error, "busy") == 0     ? "too many evals wait"
                                                     : "the code does not fit a line";
  reply_error(s->ticket, error, "eval: %s", why);
  stream_close(s);
}

void eval_stdin(struct stream *s, const uint8_t *data, size_t len) {
  if (s->eval) return;
  if (len == 0 || s->code.len + len > s->code_bytes) {
    reply_error(s->ticket, "bad_request", "eval: the code is not code_bytes long");
    stream_close(s);
    return;
  }
  buf_add(&s->code, data, len);
  if (s->code.len == s->code_bytes) {
    submit(s);
  } else {
    stream_took(s, len, true);
  }
}

void op_eval(struct ticket ticket, const struct json *request) {
  uint64_t code_bytes;
  uint64_t timeout_ms;
  if (!json_get_uint(request, "code_bytes", EVAL_CODE_BYTES_MAX, &code_bytes)) {
    reply_error(ticket, "bad_request", "eval: code_bytes must be 0 to %u", EVAL_CODE_BYTES_MAX);
    return;
  }
  if (!json_get_uint(request, "timeout_ms", TIMEOUT_MS_MAX, &timeout_ms) || timeout_ms == 0) {
    reply_error(ticket, "bad_request", "eval: timeout_ms must be 1 to %u", TIMEOUT_MS_MAX);
    return;
  }
  struct stream *s = stream_open(ticket);
  if (!s) return;
  s->code_bytes = code_bytes;
  s->timeout_ms = timeout_ms;
  if (code_bytes == 0) submit(s);
}
