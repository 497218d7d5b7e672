#include "warm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base.h"
#include "eval.h"
#include "files.h"
#include "bounds.h"
#include "job.h"
#include "loop.h"
#include "op.h"
#include "probe.h"
#include "recipe.h"
#include "runtime.h"

static struct {
  const char *state;
  struct ticket ticket;
  struct timer deadline;
  uint64_t timeout_ms;
  int parts; /* what is not warm yet */
  struct job *job;
  struct probe probe;
  struct buf tail;
  struct buf detail;
} warm = {.state = "none"};

const char *warm_state(void) { return warm.state; }

static void finish(const char *state) {
  warm.state = state;
  timer_clear(&warm.deadline);
  probe_stop(&warm.probe);
}

static void fail(const char *code, const char *why) {
  if (strcmp(warm.state, "pending") != 0) return;
  finish("failed");
  reply_error(warm.ticket, code, "%s%s%s", why, warm.tail.len ? "\n" : "", buf_text(&warm.tail));
  if (warm.job) {
    job_signal(warm.job, 9);
    job_detach(warm.job);
    warm.job = NULL;
  }
  runtime_kill();
}

static void part_ready(const char *detail) {
  if (strcmp(warm.state, "pending") != 0) return;
  if (*detail) buf_printf(&warm.detail, "%s%.400s", warm.detail.len ? "; " : "", detail);
  if (--warm.parts > 0) return;
  finish("ready");
  struct jw *w = reply_begin();
  jw_string(w, "runtime", runtime_name());
  jw_string(w, "detail", buf_text(&warm.detail));
  reply_send(warm.ticket);
}

static void runtime_answered(bool ok, const char *text) {
  if (ok) {
    part_ready(text);
  } else {
    fail("warmup_failed", text);
  }
}

static void command_ready(void) { part_ready("the command is ready"); }

static size_t room(void *arg) {
  (void)arg;
  return SIZE_MAX;
}

static void output(void *arg, int which, const uint8_t *data, size_t len) {
  (void)arg;
  if (strcmp(warm.state, "pending") != 0) return;
  buf_add_tail(&warm.tail, data, len, WARM_TAIL_BYTES);
  if (!probe_output(&warm.probe, which, data, len)) return;
  warm.probe.kind = PROBE_NONE;
  command_ready();
}

static void done(void *arg, const struct job_result *r) {
  (void)arg;
  warm.job = NULL;
  if (strcmp(warm.state, "pending") != 0) return;
  bool well = r->signal == 0 && r->exit_code == 0;
  if (well && warm.probe.kind == PROBE_EXIT) {
    part_ready("the command has finished");
  } else if (!well || warm.probe.kind == PROBE_LINE || warm.probe.kind == PROBE_READY_JSON) {
    /* A daemon may put itself in the background and end well before its port answers. */
    char why[128];
    snprintf(why, sizeof why, "the warm-up command ended before it was ready (%s %d)",
             r->signal ? "signal" : "exit code", r->signal ? r->signal : r->exit_code);
    fail("warmup_failed", why);
  }
}

static void start_command(char **argv) {
  struct env env;
  struct user user;
  base_command(NULL, NULL, &env, &user);
  struct spawn what = {.argv = argv, .env = &env, .cwd = base_get()->cwd, .user = &user};
  struct job_sink sink = {.room = room, .output = output, .done = done};
  struct spawn_error error;
  warm.job = job_start(&what, false, 0, &sink, &error);
  if (!warm.job) {
    char text[512];
    spawn_error_text(&error, &what, text, sizeof text);
    fail("warmup_failed", text);
  } else {
    probe_start(&warm.probe, command_ready);
  }
  env_free(&env);
}

static void on_deadline(void *arg) {
  (void)arg;
  char why[80];
  snprintf(why, sizeof why, "the warm-up took longer than %llu ms",
           (unsigned long long)warm.timeout_ms);
  fail("warmup_timeout", why);
}

/* FORKD_AGENT_LANG=node: evals go to the command; else it is only kept, and Python is warmed. */
static void follow_recipe(uint64_t timeout_ms) {
  size_t len = 0;
  char *text = file_read("/etc/forkd-recipe.env", RECIPE_FILE_BYTES_MAX, &len);
  struct env *env = &base_get()->env;
  if (text) recipe_parse(env, text, len);
  free(text);
  const char *command = env_get(env, "FORKD_WARMUP_CMD");
  if (!command || !*command) {
    part_ready("nothing to warm");
    return;
  }
  char **argv = words_split(command);
  const char *lang = env_get(env, "FORKD_AGENT_LANG");
  if (!argv || !argv[0]) {
    fail("warmup_failed", "FORKD_WARMUP_CMD cannot be split into words");
  } else if (lang && strcmp(lang, "node") == 0) {
    runtime_configure(RUNTIME_BRIDGE, argv, &eval_hears);
    runtime_start(runtime_answered, timeout_ms);
  } else {
    static char *const imports[] = {"?numpy", NULL};
    warm.parts = 2;
    warm.probe.kind = PROBE_READY_JSON;
    start_command(argv);
    runtime_configure(RUNTIME_PYTHON, imports, &eval_hears);
    runtime_start(runtime_answered, timeout_ms);
  }
  words_free(argv);
}

/* The names to import, pointing into the request; NULL when the list is malformed. */
static char **imports_of(const struct json *list) {
  size_t count = list && list->type == JSON_ARRAY ? list->count : 0;
  if (count > RUNTIME_IMPORTS_MAX || (list && list->type > JSON_NULL && list->type != JSON_ARRAY)) {
    return NULL;
  }
  char **names = xalloc((count + 1) * sizeof *names);
  size_t n = 0;
  for (const struct json *m = count ? list->child : NULL; m; m = m->next) {
    const char *name = json_string(m);
    if (!name || !*name || *name == '-' || m->len > 200) {
      free(names);
      return NULL;
    }
    names[n++] = (char *)name;
  }
  return names;
}

/* A list of texts, or one text for /bin/sh; NULL when malformed. */
static char **command_of(const struct json *cmd) {
  char **argv = xalloc((ARGV_MAX + 4) * sizeof *argv);
  size_t n = 0;
  const char *text = json_string(cmd);
  if (text) {
    argv[0] = "/bin/sh";
    argv[1] = "-c";
    argv[2] = (char *)text;
    return argv;
  }
  bool ok = cmd->type == JSON_ARRAY && cmd->count > 0 && cmd->count <= ARGV_MAX;
  for (const struct json *m = ok ? cmd->child : NULL; m && ok; m = m->next) {
    argv[n] = (char *)json_string(m);
    ok = argv[n++] != NULL;
  }
  if (ok) return argv;
  free(argv);
  return NULL;
}

static const char *set_base(const struct json *request) {
  struct base *base = base_get();
  const char *user = json_get_string(request, "user");
  const char *cwd = json_get_string(request, "cwd");
  struct user resolved;
  if (!env_merge(&base->env, json_get(request, "env"))) return "env must hold texts";
  if (!user_resolve(user, &resolved)) return "no such user";
  if (user) {
    free(base->user);
    base->user = xstrdup(user);
  }
  if (cwd && *cwd) {
    if (*cwd != '/') return "cwd must begin with /";
    free(base->cwd);
    base->cwd = xstrdup(cwd);
  }
  return NULL;
}

static void start_parts(const struct json *request, enum runtime_kind kind, char **imports,
                        uint64_t timeout_ms) {
  const struct json *cmd = json_get(request, "cmd");
  bool has_cmd = cmd && cmd->type != JSON_NULL;
  warm.parts = (kind != RUNTIME_NONE) + has_cmd;
  if (warm.parts == 0) {
    warm.parts = 1;
    follow_recipe(timeout_ms);
    return;
  }
  if (has_cmd) {
    char **argv = command_of(cmd);
    if (argv) {
      start_command(argv);
    } else {
      fail("bad_request", "warm: cmd must be a text or a list of texts");
    }
    free(argv);
  }
  if (kind == RUNTIME_NONE || strcmp(warm.state, "pending") != 0) return;
  runtime_configure(kind, imports, &eval_hears);
  runtime_start(runtime_answered, timeout_ms);
}

void op_warm(struct ticket ticket, const struct json *request) {
  uint64_t timeout_ms;
  const char *wrong = NULL;
  const char *runtime = json_get_string(request, "runtime");
  enum runtime_kind kind = RUNTIME_NONE;
  if (strcmp(warm.state, "none") != 0) wrong = "it was done already in this boot";
  if (!json_get_uint(request, "timeout_ms", TIMEOUT_MS_MAX, &timeout_ms) || timeout_ms == 0) {
    wrong = "timeout_ms must be 1 to 86400000";
  }
  if (runtime && strcmp(runtime, "python") == 0) kind = RUNTIME_PYTHON;
  if (runtime && strcmp(runtime, "node") == 0) kind = RUNTIME_NODE;
  if (!json_absent(request, "runtime") && kind == RUNTIME_NONE) wrong = "unknown runtime";
  char **imports = imports_of(json_get(request, "imports"));
  if (!imports) wrong = "imports must be a list of at most 64 names";
  if (!wrong && !probe_parse(&warm.probe, json_get(request, "ready"))) {
    wrong = "ready must be {tcp}, {file} or {line}";
  }
  if (!wrong) wrong = set_base(request);
  if (wrong) {
    reply_error(ticket, "bad_request", "warm: %s", wrong);
  } else {
    warm.state = "pending";
    warm.ticket = ticket;
    buf_init(&warm.tail, WARM_TAIL_BYTES);
    buf_init(&warm.detail, 4096);
    warm.timeout_ms = timeout_ms;
    timer_set(&warm.deadline, timeout_ms, on_deadline, NULL);
    start_parts(request, kind, imports, timeout_ms + 1000);
  }
  free(imports);
}
