#include <stdlib.h>
#include <string.h>

#include "bounds.h"
#include "eval.h"
#include "op.h"
#include "stream.h"

/* Code on its way: so much of it is expected in the stream's `kept`. */
struct upload {
  uint64_t code_bytes;
  uint64_t timeout_ms;
};

static size_t room(void *arg) { return stream_room(arg); }

static void output(void *arg, int which, const uint8_t *data, size_t len) {
  stream_output(arg, which, data, len);
}

/* Sends a long text as events, cut between characters. */
static void send_pieces(struct ticket ticket, const char *name, struct text text) {
  /* Half a frame's worth at most: escapes can make a piece several times longer. */
  const size_t piece_max = RESULT_PIECE_BYTES / 4;
  while (text.len > 0) {
    size_t n = text.len < piece_max ? text.len : piece_max;
    while (n < text.len && n > 1 && ((uint8_t)text.data[n] & 0xc0) == 0x80) n--;
    struct jw *w = reply_begin();
    jw_string(w, "event", name);
    jw_text(w, "part", text.data, n);
    reply_event(ticket);
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
static struct text inlined(struct ticket ticket, const char *name, struct text text,
                           size_t *left) {
  if (!text.data || text.len <= *left) {
    *left -= text.data ? text.len : 0;
    return text;
  }
  send_pieces(ticket, name, text);
  return (struct text){NULL, 0};
}

static void done(void *arg, const struct eval_result *r) {
  struct stream *s = arg;
  /* The host may stop to read in between, which closes the stream. */
  struct ticket ticket = s->ticket;
  if (r->failure) {
    reply_error(ticket, r->failure, "%s", r->error.data ? r->error.data : "");
    stream_close(s);
    return;
  }
  /* All texts of one reply share what is surely within a frame, however they are escaped. */
  size_t left = RESULT_PIECE_BYTES / 4;
  struct text error = r->error;
  if (error.len > 2048) error.len = 2048;
  struct text result = inlined(ticket, "result", r->result, &left);
  struct text result_json = inlined(ticket, "result_json", r->result_json, &left);
  struct text traceback = inlined(ticket, "traceback", r->traceback, &left);
  struct jw *w = reply_begin();
  jw_bool(w, "ok", r->ok);
  put(w, "result", result);
  put(w, "result_json", result_json);
  put(w, "error", error);
  put(w, "traceback", traceback);
  jw_bool(w, "timed_out", r->timed_out);
  jw_ms(w, "duration_ms", r->duration_ms);
  reply_send(ticket);
  stream_close(s);
}

static void on_signal(struct stream *s, int number) {
  (void)number;
  eval_cancel(s->work);
}

static void on_resume(struct stream *s) { eval_resume(s->work); }

static void on_detach(struct stream *s) { eval_detach(s->work); }

/* All the code is there. */
static void submit(struct stream *s, uint64_t timeout_ms) {
  static const struct stream_kind shows_eval = {NULL, on_signal, on_resume, on_detach};
  struct eval_sink sink = {room, output, done, s};
  const char *error;
  struct eval *e = eval_submit(buf_head(&s->kept), s->kept.len, timeout_ms, &sink, &error);
  if (e) {
    stream_serve(s, &shows_eval, e);
    buf_free(&s->kept);
    return;
  }
  const char *why = strcmp(error, "no_runtime") == 0 ? "this guest has no warm interpreter"
                    : strcmp(error, "busy") == 0     ? "too many evals wait"
                                                     : "the code does not fit a line";
  reply_error(s->ticket, error, "eval: %s", why);
  stream_close(s);
}

static void drop_upload(struct stream *s) {
  free(s->work);
  stream_serve(s, NULL, NULL);
}

static void on_code(struct stream *s, const uint8_t *data, size_t len) {
  const struct upload *u = s->work;
  if (len == 0 || s->kept.len + len > u->code_bytes) {
    drop_upload(s);
    reply_error(s->ticket, "bad_request", "eval: the code is not code_bytes long");
    stream_close(s);
    return;
  }
  buf_add(&s->kept, data, len);
  if (s->kept.len < u->code_bytes) {
    stream_took(s, len, true);
    return;
  }
  uint64_t timeout_ms = u->timeout_ms;
  drop_upload(s);
  submit(s, timeout_ms);
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
  if (code_bytes == 0) {
    submit(s, timeout_ms);
    return;
  }
  static const struct stream_kind takes_code = {.input = on_code, .detach = drop_upload};
  struct upload *u = xalloc(sizeof *u);
  *u = (struct upload){code_bytes, timeout_ms};
  buf_init(&s->kept, EVAL_CODE_BYTES_MAX);
  stream_serve(s, &takes_code, u);
}
