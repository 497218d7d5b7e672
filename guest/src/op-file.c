#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base.h"
#include "base64.h"
#include "file-ask.h"
#include "file-worker.h"
#include "files.h"
#include "job-stream.h"
#include "op.h"

/* Of what a worker says on standard error; it says less. */
#define FAILURE_BYTES_MAX 1024
/* Largest offset and length: what a double of JSON holds exactly. */
#define POSITION_MAX (1ULL << 53)
#define MODE_MAX 07777

/* Standard error is the worker's failure: kept until its end, and credit for it is not used. */
static void output(void *arg, int which, const uint8_t *data, size_t len) {
  struct stream *s = arg;
  if (which == 1) {
    stream_output(s, which, data, len);
  } else if (s->kept.len + len <= FAILURE_BYTES_MAX) {
    buf_add(&s->kept, data, len);
  }
}

/* "CODE MESSAGE", as file_fail_as writes it. */
static void send_failure(struct stream *s, const struct job_result *r) {
  const char *text = buf_text(&s->kept);
  size_t code_len = strcspn(text, " ");
  char code[32];
  if (r->timed_out) {
    reply_error(s->ticket, "timeout", "file: it took too long");
  } else if (r->signal || text[code_len] == 0 || code_len >= sizeof code) {
    reply_error(s->ticket, "file_failed", "file: the worker ended with %s",
                r->signal ? signal_name(r->signal) : "an error");
  } else {
    snprintf(code, sizeof code, "%.*s", (int)code_len, text);
    reply_error(s->ticket, code, "%s", text + code_len + 1);
  }
}

static void done(void *arg, const struct job_result *r) {
  struct stream *s = arg;
  if (r->exit_code == 0) {
    reply_empty(s->ticket);
  } else {
    send_failure(s, r);
  }
  stream_close(s);
}

/* A path as bytes; false when it is not 1 to PATH_BYTES_MAX - 1 of them, or one is NUL. */
static bool path_of(const struct json *request, const char *key, char out[PATH_BYTES_MAX]) {
  const struct json *v = json_get(request, key);
  if (!v || v->type != JSON_STRING) return false;
  ssize_t n = base64_decode(v->str, v->len, (uint8_t *)out, PATH_BYTES_MAX - 1);
  if (n <= 0 || memchr(out, 0, (size_t)n)) return false;
  out[n] = 0;
  return true;
}

static bool number_of(const struct json *request, const char *key, uint64_t max, uint64_t usual,
                      char out[24]) {
  uint64_t n = usual;
  if (!json_absent(request, key) && !json_get_uint(request, key, max, &n)) return false;
  snprintf(out, 24, "%lld", (long long)n);
  return true;
}

/* False when a flag is neither absent nor true or false. */
static bool flags_of(const struct json *request, char out[8]) {
  static const struct {
    const char *key;
    char letter;
  } known[] = {{"parents", FILE_FLAG_PARENTS},
               {"exclusive", FILE_FLAG_EXCLUSIVE},
               {"recursive", FILE_FLAG_RECURSIVE},
               {"follow", FILE_FLAG_FOLLOW}};
  size_t n = 0;
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    const struct json *v = json_get(request, known[i].key);
    if (v && v->type != JSON_BOOL) return false;
    if (v && v->boolean) out[n++] = known[i].letter;
  }
  out[n] = 0;
  return true;
}

/* The words of one request, and what the process starts with. */
struct plan {
  char path[PATH_BYTES_MAX];
  char to[PATH_BYTES_MAX];
  char offset[24];
  char length[24];
  char mode[24];
  char flags[8];
  uint64_t timeout_ms;
};

static const char *plan_of(const struct json *request, struct plan *p) {
  p->to[0] = 0;
  if (!json_get_uint(request, "timeout_ms", TIMEOUT_MS_MAX, &p->timeout_ms) || !p->timeout_ms) {
    return "timeout_ms must be 1 to 86400000";
  }
  if (!json_get_string(request, "action")) return "action must be a text";
  if (!path_of(request, "path_b64", p->path)) return "path_b64 must be 1 to 4095 bytes, none NUL";
  bool renames = strcmp(json_get_string(request, "action"), "rename") == 0;
  if (renames && !path_of(request, "to_b64", p->to)) return "to_b64 must be 1 to 4095 bytes";
  if (!number_of(request, "offset", POSITION_MAX, 0, p->offset) ||
      !number_of(request, "length", POSITION_MAX, POSITION_MAX, p->length) ||
      !number_of(request, "mode", MODE_MAX, (uint64_t)-1, p->mode)) {
    return "offset, length and mode must be whole numbers";
  }
  if (!flags_of(request, p->flags)) return "flags must be true or false";
  if (!json_absent(request, "user") && !json_get_string(request, "user")) {
    return "user must be a text";
  }
  return NULL;
}

static void start(struct stream *s, struct spawn *what, uint64_t timeout_ms) {
  struct job_sink sink = job_stream_sink(s, done);
  sink.output = output;
  buf_init(&s->kept, FAILURE_BYTES_MAX);
  struct spawn_error error;
  /* With an input always: its end tells the worker that nobody listens any more. */
  struct job *job = job_start(what, true, timeout_ms, &sink, &error);
  if (job) {
    job_stream_serve(s, job);
    return;
  }
  char text[512];
  spawn_error_text(&error, what, text, sizeof text);
  reply_error(s->ticket, spawn_error_code(&error), "file: %s", text);
  stream_close(s);
}

void op_file(struct ticket ticket, const struct json *request) {
  struct plan p;
  struct env env;
  struct user user;
  const char *wrong = plan_of(request, &p);
  if (wrong) {
    reply_error(ticket, "bad_request", "file: %s", wrong);
    return;
  }
  const char *spec = json_get_string(request, "user");
  const char *code = base_command(NULL, spec, &env, &user);
  if (code) {
    reply_error(ticket, code, "file: no such user: %.200s", spec ? spec : base_get()->user);
    return;
  }
  char *argv[] = {"/proc/self/exe", FILE_WORKER_WORD, (char *)json_get_string(request, "action"),
                  p.path, p.to, p.offset, p.length, p.mode, p.flags, NULL};
  struct spawn what = {.argv = argv, .env = &env, .cwd = base_get()->cwd, .user = &user};
  struct stream *s = stream_open(ticket);
  if (s) start(s, &what, p.timeout_ms);
  env_free(&env);
}
