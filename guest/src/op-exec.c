#include <stdlib.h>
#include <string.h>

#include "base.h"
#include "session.h"

static size_t room(void *arg) { return stream_room(arg); }

static void output(void *arg, int which, const uint8_t *data, size_t len) {
  stream_output(arg, which, data, len);
}

static void took(void *arg, size_t len) { stream_took(arg, len, true); }

static void done(void *arg, const struct job_result *r) {
  struct stream *s = arg;
  struct jw *w = reply_begin();
  if (r->signal) {
    jw_null(w, "exit_code");
  } else {
    jw_int(w, "exit_code", r->exit_code);
  }
  jw_string(w, "signal", r->signal ? signal_name(r->signal) : NULL);
  jw_bool(w, "timed_out", r->timed_out);
  jw_ms(w, "duration_ms", r->duration_ms);
  reply_send(s->ticket, FRAME_REPLY);
  stream_close(s);
}

void exec_stdin(struct stream *s, const uint8_t *data, size_t len) {
  if (len == 0) {
    job_close_stdin(s->job);
  } else {
    /* Cannot overflow: the queue is as large as the credit. */
    job_write(s->job, data, len);
  }
}

/* The texts of a JSON array of strings, which they point into; NULL when it is none. */
static char **argv_of(const struct json *list) {
  if (!list || list->type != JSON_ARRAY || list->count == 0 || list->count > ARGV_MAX) return NULL;
  char **argv = xalloc((list->count + 1) * sizeof *argv);
  size_t n = 0;
  for (const struct json *m = list->child; m; m = m->next) {
    const char *text = json_string(m);
    if (!text || (n == 0 && !*text)) {
      free(argv);
      return NULL;
    }
    argv[n++] = (char *)text;
  }
  return argv;
}

static void start(struct stream *s, struct spawn *what, bool with_stdin, uint64_t timeout_ms) {
  struct job_sink sink = {room, output, took, done, s};
  struct spawn_error error;
  s->job = job_start(what, with_stdin, timeout_ms, &sink, &error);
  if (!s->job) {
    char text[512];
    spawn_error_text(&error, what, text, sizeof text);
    reply_error(s->ticket, spawn_error_code(&error), "%s", text);
    stream_close(s);
    return;
  }
  struct jw *w = reply_begin();
  jw_string(w, "event", "started");
  jw_int(w, "pid", job_pid(s->job));
  reply_send(s->ticket, FRAME_EVENT);
}

/* True when the optional member is absent or a string without NUL bytes. */
static bool optional_text(const struct json *request, const char *key) {
  return json_absent(request, key) || json_get_string(request, key);
}

static const char *check(const struct json *request, uint64_t *timeout_ms) {
  if (!json_get_uint(request, "timeout_ms", TIMEOUT_MS_MAX, timeout_ms) || *timeout_ms == 0) {
    return "timeout_ms must be 1 to 86400000";
  }
  const struct json *tty = json_get(request, "tty");
  if (tty && tty->type == JSON_BOOL && tty->boolean) return "tty is not supported";
  if (!optional_text(request, "cwd")) return "cwd must be a text";
  if (!optional_text(request, "user")) return "user must be a text";
  const struct json *in = json_get(request, "stdin");
  if (in && in->type != JSON_BOOL) return "stdin must be true or false";
  return NULL;
}

void op_exec(struct ticket ticket, const struct json *request) {
  uint64_t timeout_ms;
  const char *wrong = check(request, &timeout_ms);
  char **argv = wrong ? NULL : argv_of(json_get(request, "argv"));
  if (!argv) {
    if (!wrong) wrong = "argv must be a list of 1 to 4096 texts";
    reply_error(ticket, "bad_request", "exec: %s", wrong);
    return;
  }
  struct env env;
  struct user user;
  const char *user_spec = json_get_string(request, "user");
  const char *code = base_command(json_get(request, "env"), user_spec, &env, &user);
  if (code) {
    bool bad_user = strcmp(code, "bad_user") == 0;
    reply_error(ticket, code, "exec: %s%.200s", bad_user ? "no such user: " : "env must hold texts",
                bad_user ? (user_spec ? user_spec : base_get()->user) : "");
    free(argv);
    return;
  }
  const char *cwd = json_get_string(request, "cwd");
  if (!cwd) cwd = base_get()->cwd;
  struct spawn what = {.argv = argv, .env = &env, .cwd = cwd, .user = &user};
  const struct json *in = json_get(request, "stdin");
  struct stream *s = stream_open(ticket);
  if (s) start(s, &what, in && in->boolean, timeout_ms);
  env_free(&env);
  free(argv);
}
