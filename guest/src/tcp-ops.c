#include "tcp-ops.h"

#include <stdlib.h>
#include <string.h>

#include "base.h"
#include "eval.h"
#include "bounds.h"
#include "ping.h"
#include "runtime.h"

#define TIMEOUT_SECONDS 30.0

static size_t captured_total;

struct capture {
  struct conn *conn; /* NULL once it closed */
  struct buf out[2];
  bool truncated;
  struct job *job;
};

static size_t room(void *arg) {
  (void)arg;
  return SIZE_MAX;
}

static void output(void *arg, int which, const uint8_t *data, size_t len) {
  struct capture *c = arg;
  struct buf *b = &c->out[which - 1];
  size_t left = b->max - b->len;
  if (left > TCP_CAPTURE_TOTAL_BYTES_MAX - captured_total) {
    left = TCP_CAPTURE_TOTAL_BYTES_MAX - captured_total;
  }
  if (len > left) c->truncated = true;
  size_t n = len < left ? len : left;
  if (n && buf_add(b, data, n)) captured_total += n;
}

static void free_capture(struct capture *c) {
  captured_total -= c->out[0].len + c->out[1].len;
  buf_free(&c->out[0]);
  buf_free(&c->out[1]);
  free(c);
}

static void exec_done(void *arg, const struct job_result *r) {
  struct capture *c = arg;
  struct jw *w = conn_reply(c->conn);
  jw_text(w, "stdout", buf_text(&c->out[0]), c->out[0].len);
  jw_text(w, "stderr", buf_text(&c->out[1]), c->out[1].len);
  jw_int(w, "exit_code", r->signal ? -r->signal : r->exit_code);
  jw_bool(w, "timed_out", r->timed_out);
  if (c->truncated) jw_bool(w, "truncated", true);
  conn_send(c->conn);
  free_capture(c);
}

/* The client is gone: the command goes on, unheard. */
static void exec_forget(void *work) {
  struct capture *c = work;
  job_detach(c->job);
  free_capture(c);
}

static bool timeout_of(const struct json *request, uint64_t *ms) {
  const struct json *v = json_get(request, "timeout");
  double seconds = TIMEOUT_SECONDS;
  if (v && v->type == JSON_NUMBER) seconds = v->number;
  if (v && v->type != JSON_NUMBER && v->type != JSON_NULL) return false;
  if (!(seconds > 0) || seconds > TIMEOUT_MS_MAX / 1000.0) return false;
  *ms = (uint64_t)(seconds * 1000);
  if (*ms == 0) *ms = 1;
  return true;
}

static void exec_start(struct conn *conn, char **argv, uint64_t timeout_ms) {
  struct env env;
  struct user user;
  if (base_command(NULL, NULL, &env, &user)) {
    conn_error(conn, "the user of this image does not exist");
    return;
  }
  struct capture *c = xalloc(sizeof *c);
  c->conn = conn;
  buf_init(&c->out[0], TCP_CAPTURE_BYTES_MAX);
  buf_init(&c->out[1], TCP_CAPTURE_BYTES_MAX);
  struct spawn what = {.argv = argv, .env = &env, .cwd = base_get()->cwd, .user = &user};
  struct job_sink sink = {.room = room, .output = output, .done = exec_done, .arg = c};
  struct spawn_error error;
  c->job = job_start(&what, false, timeout_ms, &sink, &error);
  if (c->job) {
    conn_wait(conn, exec_forget, c);
  } else {
    char text[512];
    spawn_error_text(&error, &what, text, sizeof text);
    free_capture(c);
    conn_error(conn, "%s", text);
  }
  env_free(&env);
}

static void act_exec(struct conn *conn, const struct json *request) {
  const struct json *args = json_get(request, "args");
  uint64_t timeout_ms;
  bool ok = args && args->type == JSON_ARRAY && args->count > 0 && args->count <= ARGV_MAX;
  if (!ok || !timeout_of(request, &timeout_ms)) {
    conn_error(conn, "exec needs args, a list of texts, and a timeout in seconds");
    return;
  }
  char **argv = xalloc((args->count + 1) * sizeof *argv);
  size_t n = 0;
  for (const struct json *m = args->child; m && ok; m = m->next) {
    argv[n] = (char *)json_string(m);
    ok = argv[n++] != NULL;
  }
  if (ok) {
    exec_start(conn, argv, timeout_ms);
  } else {
    conn_error(conn, "args must be texts");
  }
  free(argv);
}

static void put(struct jw *w, const char *key, struct text text) {
  if (text.data) jw_text(w, key, text.data, text.len);
}

static void eval_done(void *arg, const struct eval_result *r) {
  struct conn *conn = arg;
  if (r->failure || (!r->ok && !r->error.data)) {
    conn_error(conn, "%s", r->failure ? r->failure : "the interpreter gave no answer");
    return;
  }
  struct jw *w = conn_reply(conn);
  if (r->ok) {
    put(w, "result", r->result);
    /* Clients of earlier versions decode it, and know the text of a value from Python. */
    if (runtime_kind() != RUNTIME_PYTHON) put(w, "result_json", r->result_json);
  } else {
    put(w, "error", r->error);
    put(w, "traceback", r->traceback);
    put(w, "stack", r->traceback);
  }
  if (r->timed_out) jw_bool(w, "timed_out", true);
  jw_int(w, "exit_code", r->ok ? 0 : 1);
  conn_send(conn);
}

static void eval_forget(void *work) { eval_detach(work); }

static void act_eval(struct conn *conn, const struct json *request) {
  const struct json *code = json_get(request, "code");
  uint64_t timeout_ms;
  if (!code || code->type != JSON_STRING || !timeout_of(request, &timeout_ms)) {
    conn_error(conn, "eval needs code, a text");
    return;
  }
  if (json_absent(request, "timeout")) timeout_ms = TIMEOUT_MS_MAX;
  struct eval_sink sink = {.done = eval_done, .arg = conn};
  const char *error;
  struct eval *e = eval_submit((const uint8_t *)code->str, code->len, timeout_ms, &sink, &error);
  if (!e) {
    conn_error(conn, "eval: %s", error);
    return;
  }
  conn_wait(conn, eval_forget, e);
}

void tcp_request(struct conn *conn, const struct json *request) {
  const char *action = json_get_string(request, "action");
  if (!action) {
    conn_error(conn, "the request has no action");
  } else if (strcmp(action, "ping") == 0) {
    ping_fields(conn_reply(conn));
    conn_send(conn);
  } else if (strcmp(action, "exec") == 0) {
    act_exec(conn, request);
  } else if (strcmp(action, "eval") == 0) {
    act_eval(conn, request);
  } else {
    conn_error(conn, "unknown action: %.100s", action);
  }
}
