#include "reseed.h"

#include <stdio.h>
#include <string.h>

#include "cells.h"
#include "bounds.h"
#include "loop.h"
#include "runtime.h"

/* Far above the numbers of evals. */
#define FIRST_ID 1000000000000ULL

static char line[1200]; /* not empty: to be sent before the next eval */
static uint64_t id = FIRST_ID;
static reseed_fn *waiting;
static struct timer deadline;

static void conclude(bool ok, const char *json, size_t len, const char *error) {
  timer_clear(&deadline);
  reseed_fn *done = waiting;
  waiting = NULL;
  struct reseed_result r = {.ok = ok, .names = {json, len}, .error = error};
  if (done) done(&r);
}

static void on_deadline(void *arg) {
  (void)arg;
  runtime_kill();
  conclude(false, "[]", 2, "the runtime did not answer");
}

void reseed_send_pending(void) {
  if (!line[0]) return;
  runtime_send(line, strlen(line));
  line[0] = 0;
}

void reseed_runtime(const char *seed_hex, bool later, reseed_fn *done) {
  static const struct reseed_result nothing = {.ok = true, .names = {"[]", 2}};
  static const struct reseed_result pending = {.ok = true, .pending = true, .names = {"[]", 2}};
  enum runtime_kind kind = runtime_kind();
  /* One that is not running seeds itself when it starts. */
  bool none = kind == RUNTIME_NONE || kind == RUNTIME_BRIDGE || runtime_state() == RUNTIME_OFF;
  if (none) {
    done(&nothing);
    return;
  }
  snprintf(line, sizeof line, "{\"id\":%llu,\"op\":\"reseed\",\"seed\":\"%s\"}\n",
           (unsigned long long)++id, seed_hex);
  if (runtime_state() != RUNTIME_READY || later) {
    done(&pending);
    return;
  }
  waiting = done;
  timer_set(&deadline, RUNTIME_RESEED_MS, on_deadline, NULL);
  reseed_send_pending();
  /* It was held: the request is the first thing that its main thread reads. */
  cell_thaw(CELL_RUNTIME);
}

bool reseed_answer(const struct json *answer_id, const struct json *root) {
  if (!answer_id || answer_id->type != JSON_NUMBER || answer_id->number <= (double)FIRST_ID) {
    return false;
  }
  if (answer_id->number != (double)id) return true;
  const struct json *ok = json_get(root, "ok");
  const struct json *names = json_get(root, "reseeded");
  if (ok && ok->type == JSON_BOOL && ok->boolean && names && names->type == JSON_ARRAY) {
    conclude(true, names->raw, names->raw_len, NULL);
  } else {
    runtime_kill();
    conclude(false, "[]", 2, "the runtime could not reseed");
  }
  return true;
}

void reseed_runtime_gone(void) {
  line[0] = 0;
  if (waiting) conclude(false, "[]", 2, "the runtime died");
}
