#include "command.h"

#include <stdlib.h>
#include <string.h>

#include "base.h"

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

/* True when the optional member is absent or a string without NUL bytes. */
static bool optional_text(const struct json *request, const char *key) {
  return json_absent(request, key) || json_get_string(request, key);
}

static const char *check(const struct json *request, uint64_t *timeout_ms) {
  if (!json_get_uint(request, "timeout_ms", TIMEOUT_MS_MAX, timeout_ms) || *timeout_ms == 0) {
    return "timeout_ms must be 1 to 86400000";
  }
  if (!optional_text(request, "cwd")) return "cwd must be a text";
  if (!optional_text(request, "user")) return "user must be a text";
  const struct json *in = json_get(request, "stdin");
  if (in && in->type != JSON_BOOL) return "stdin must be true or false";
  return NULL;
}

bool command_parse(struct ticket ticket, const struct json *request, struct command *c) {
  const char *wrong = check(request, &c->timeout_ms);
  char **argv = wrong ? NULL : argv_of(json_get(request, "argv"));
  if (!argv) {
    if (!wrong) wrong = "argv must be a list of 1 to 4096 texts";
    reply_error(ticket, "bad_request", "exec: %s", wrong);
    return false;
  }
  const char *user_spec = json_get_string(request, "user");
  const char *code = base_command(json_get(request, "env"), user_spec, &c->env, &c->user);
  if (code) {
    bool bad_user = strcmp(code, "bad_user") == 0;
    reply_error(ticket, code, "exec: %s%.200s", bad_user ? "no such user: " : "env must hold texts",
                bad_user ? (user_spec ? user_spec : base_get()->user) : "");
    free(argv);
    return false;
  }
  const char *cwd = json_get_string(request, "cwd");
  const struct json *in = json_get(request, "stdin");
  c->with_stdin = in && in->boolean;
  c->what = (struct spawn){
      .argv = argv, .env = &c->env, .cwd = cwd ? cwd : base_get()->cwd, .user = &c->user};
  return true;
}

struct job *command_start(struct command *c, const struct job_sink *sink, struct ticket ticket) {
  struct spawn_error error;
  struct job *job = job_start(&c->what, c->with_stdin, c->timeout_ms, sink, &error);
  if (job) return job;
  char text[512];
  spawn_error_text(&error, &c->what, text, sizeof text);
  reply_error(ticket, spawn_error_code(&error), "%s", text);
  return NULL;
}

void command_free(struct command *c) {
  env_free(&c->env);
  free((void *)c->what.argv);
}

void job_result_fields(struct jw *w, const struct job_result *r) {
  if (r->signal) {
    jw_null(w, "exit_code");
  } else {
    jw_int(w, "exit_code", r->exit_code);
  }
  jw_string(w, "signal", r->signal ? signal_name(r->signal) : NULL);
  jw_bool(w, "timed_out", r->timed_out);
  jw_ms(w, "duration_ms", r->duration_ms);
}
