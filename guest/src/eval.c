#include "eval.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "json.h"
#include "bounds.h"
#include "hold.h"
#include "log.h"
#include "loop.h"
#include "reseed.h"

/* What the pipes hold when the answer comes: as much still belongs to the eval. */
#define PIPE_BYTES 65536

struct eval {
  struct eval *next;
  uint64_t id;
  struct buf line;
  struct eval_sink sink;
  struct timer deadline;
  uint64_t started_ns;
  bool timed_out;
  char *answer; /* the reply line, held until the output before it is out */
  size_t answer_len;
  size_t drain_left[2];
  bool drained[2];
};

static struct eval *running;
static struct eval *waiting; /* in order */
static unsigned waiting_count;
static uint64_t next_id = 1;
static struct timer restart_timer;
static bool restart_waits; /* for the end of a hold */

static void start_next(void);

static void release(struct eval *e) {
  timer_clear(&e->deadline);
  buf_free(&e->line);
  free(e->answer);
  free(e);
}

static void complete(struct eval *e, struct eval_result *r) {
  r->duration_ms = (double)(now_ns() - e->started_ns) / 1e6;
  r->timed_out = e->timed_out;
  if (e->sink.done) e->sink.done(e->sink.arg, r);
  release(e);
}

static struct text text_of(const struct json *object, const char *key) {
  const struct json *v = json_get(object, key);
  if (!v || v->type != JSON_STRING) return (struct text){NULL, 0};
  return (struct text){v->str, v->len};
}

/* The older form: `result` is any JSON value; `error` and `stack` are texts. */
static void bridge_result(const struct json *root, struct eval_result *r) {
  const struct json *v = json_get(root, "result");
  r->error = text_of(root, "error");
  r->traceback = text_of(root, "stack");
  r->ok = !r->error.data;
  if (!r->ok || !v) return;
  r->result_json = (struct text){v->raw, v->raw_len};
  r->result = v->type == JSON_STRING ? (struct text){v->str, v->len} : r->result_json;
}

static void own_result(const struct json *root, struct eval_result *r) {
  const struct json *ok = json_get(root, "ok");
  r->ok = ok && ok->type == JSON_BOOL && ok->boolean;
  r->result = text_of(root, "result");
  r->result_json = text_of(root, "result_json");
  r->error = text_of(root, "error");
  r->traceback = text_of(root, "traceback");
}

static void complete_running(void) {
  struct eval *e = running;
  struct eval_result r = {0};
  struct json_doc doc;
  running = NULL;
  if (json_parse(&doc, e->answer, e->answer_len) == 0) {
    if (runtime_kind() == RUNTIME_BRIDGE) {
      bridge_result(doc.root, &r);
    } else {
      own_result(doc.root, &r);
    }
    complete(e, &r);
    json_free(&doc);
  }
  start_next();
}

/* Hands on printed output: true when the pipe is empty (or enough of it was read). */
static bool pump(int which) {
  static uint8_t chunk[OUTPUT_CHUNK_BYTES];
  struct eval *e = running;
  for (int i = 0; i < 4; i++) {
    size_t room = e && e->sink.room ? e->sink.room(e->sink.arg) : sizeof chunk;
    if (room == 0) {
      runtime_watch_output(which, false);
      return false;
    }
    size_t want = room < sizeof chunk ? room : sizeof chunk;
    if (e && e->answer && want > e->drain_left[which - 1]) want = e->drain_left[which - 1];
    ssize_t n = want ? runtime_read(which, chunk, want) : 0;
    if (n <= 0) break;
    if (e && e->answer) e->drain_left[which - 1] -= (size_t)n;
    if (e && e->sink.output) e->sink.output(e->sink.arg, which, chunk, (size_t)n);
    if (i == 3 && e && e->answer) i = 0;
  }
  runtime_watch_output(which, true);
  return true;
}

/* With the answer in hand: done once both pipes are empty. */
static void settle(void) {
  struct eval *e = running;
  if (!e || !e->answer) return;
  for (int which = 1; which <= 2; which++) {
    if (!e->drained[which - 1]) e->drained[which - 1] = pump(which);
  }
  if (e->drained[0] && e->drained[1]) complete_running();
}

static void on_output(int which) {
  pump(which);
  settle();
}

void eval_resume(struct eval *e) {
  if (e != running) return;
  if (e->answer) {
    settle();
    return;
  }
  pump(1);
  pump(2);
}

static bool is_id(const struct json *v, uint64_t id) {
  if (!v) return false;
  if (v->type == JSON_NUMBER) return v->number == (double)id;
  return v->type == JSON_STRING && strtoull(v->str, NULL, 10) == id;
}

static void on_line(const char *text, size_t len) {
  struct json_doc doc;
  if (json_parse(&doc, text, len) < 0) {
    log_line("the runtime wrote a line that is not JSON");
    return;
  }
  const struct json *id = json_get(doc.root, "id");
  if (reseed_answer(id, doc.root)) {
    json_free(&doc);
    return;
  }
  struct eval *e = running;
  /* The older form never promised to give back the id. */
  bool mine = e && !e->answer && (runtime_kind() == RUNTIME_BRIDGE || is_id(id, e->id));
  json_free(&doc);
  if (!mine) return;
  e->answer = xstrndup(text, len);
  e->answer_len = len;
  e->drain_left[0] = e->drain_left[1] = PIPE_BYTES;
  settle();
}

static void fail(struct eval *e, const char *failure, const char *error) {
  struct eval_result r = {.failure = failure, .error = {error, strlen(error)}};
  complete(e, &r);
}

static void on_restart(bool ok, const char *text) {
  if (ok) {
    start_next();
    return;
  }
  log_line("the runtime did not start again: %.200s", text);
  while (waiting) {
    struct eval *e = waiting;
    waiting = e->next;
    waiting_count--;
    fail(e, "runtime_died", "the interpreter died and did not start again");
  }
}

static void restart(void *arg) {
  (void)arg;
  restart_waits = hold_is_on();
  if (restart_waits) return;
  if (runtime_state() == RUNTIME_OFF) runtime_start(on_restart, RUNTIME_RESTART_MS);
}

void eval_after_hold(void) {
  if (restart_waits) restart(NULL);
}

bool eval_is_running(void) { return running; }

static void on_death(void) {
  struct eval *e = running;
  running = NULL;
  reseed_runtime_gone();
  timer_set(&restart_timer, 0, restart, NULL);
  if (!e) return;
  if (e->timed_out) {
    fail(e, NULL, "timed out; the interpreter did not stop and was started again");
  } else if (e->answer) {
    /* It answered before it died: the answer holds, what was still printed is lost. */
    running = e;
    complete_running();
  } else {
    fail(e, "runtime_died", "the interpreter died while it ran this code");
  }
}

static void on_stuck(void *arg) {
  (void)arg;
  runtime_kill();
}

static void on_deadline(void *arg) {
  struct eval *e = arg;
  e->timed_out = true;
  if (e != running) {
    for (struct eval **at = &waiting; *at; at = &(*at)->next) {
      if (*at != e) continue;
      *at = e->next;
      waiting_count--;
      break;
    }
    fail(e, NULL, "timed out while it waited for the interpreter");
  } else if (e->answer) {
    /* The answer waits for a host that does not read: the rest of the output is dropped. */
    complete_running();
  } else {
    runtime_interrupt();
    timer_set(&e->deadline, EVAL_INTERRUPT_GRACE_MS, on_stuck, e);
  }
}

void eval_cancel(struct eval *e) {
  if (e->timed_out) return;
  timer_clear(&e->deadline);
  on_deadline(e);
}

static void start_next(void) {
  if (running || runtime_state() != RUNTIME_READY) return;
  reseed_send_pending();
  if (!waiting) return;
  running = waiting;
  waiting = waiting->next;
  waiting_count--;
  runtime_send(buf_head(&running->line), running->line.len);
  buf_free(&running->line);
  pump(1);
  pump(2);
}

static bool encode(struct eval *e, const uint8_t *code, size_t len) {
  char id[24];
  struct jw w;
  buf_init(&e->line, RUNTIME_LINE_BYTES_MAX);
  jw_init(&w, &e->line);
  jw_open(&w, NULL, '{');
  snprintf(id, sizeof id, "%llu", (unsigned long long)e->id);
  if (runtime_kind() == RUNTIME_BRIDGE) {
    jw_string(&w, "id", id);
  } else {
    jw_raw(&w, "id", id, strlen(id));
    jw_string(&w, "op", "eval");
  }
  jw_text(&w, "code", (const char *)code, len);
  jw_close(&w, '}');
  buf_puts(&e->line, "\n");
  return !e->line.overflow;
}

struct eval *eval_submit(const uint8_t *code, size_t len, uint64_t timeout_ms,
                         const struct eval_sink *sink, const char **error) {
  *error = runtime_kind() == RUNTIME_NONE         ? "no_runtime"
           : waiting_count >= EVALS_WAITING_MAX ? "busy"
                                                : NULL;
  if (*error) return NULL;
  struct eval *e = xalloc(sizeof *e);
  e->id = next_id++;
  e->started_ns = now_ns();
  e->sink = *sink;
  if (!encode(e, code, len)) {
    *error = "bad_request";
    release(e);
    return NULL;
  }
  timer_set(&e->deadline, timeout_ms, on_deadline, e);
  struct eval **last = &waiting;
  while (*last) last = &(*last)->next;
  *last = e;
  waiting_count++;
  if (runtime_state() == RUNTIME_OFF) {
    /* From the loop: a start can fail at once, and that would free `e` before it is returned. */
    timer_set(&restart_timer, 0, restart, NULL);
  } else {
    start_next();
  }
  return e;
}

const struct runtime_listener eval_hears = {on_line, on_output, on_death};

void eval_detach(struct eval *e) {
  e->sink = (struct eval_sink){0};
  eval_resume(e);
}
