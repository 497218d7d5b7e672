/* Evals: a bounded queue in front of the warm interpreter, one running at a time. */
#ifndef FORKD_EVAL_H
#define FORKD_EVAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "runtime.h"

struct eval;

struct text {
  const char *data; /* NULL: null */
  size_t len;
};

struct eval_result {
  const char *failure; /* "runtime_died", or NULL: the interpreter answered or ran out of time */
  bool ok;
  bool timed_out;
  struct text result;
  struct text result_json;
  struct text error;
  struct text traceback;
  double duration_ms;
};

struct eval_sink {
  size_t (*room)(void *arg);
  void (*output)(void *arg, int which, const uint8_t *data, size_t len);
  void (*done)(void *arg, const struct eval_result *result); /* last call */
  void *arg;
};

/* Queues `code`. NULL with *error "no_runtime", "busy" or "bad_request". Time counts from here. */
struct eval *eval_submit(const uint8_t *code, size_t len, uint64_t timeout_ms,
                         const struct eval_sink *sink, const char **error);
void eval_resume(struct eval *eval);
/* Ends it as its deadline would; may complete and free it. */
void eval_cancel(struct eval *eval);
/* Nobody listens any more; the code still runs. */
void eval_detach(struct eval *eval);

bool eval_is_running(void);
/* A hold is over: an interpreter that died meanwhile is started. */
void eval_after_hold(void);
/* For runtime_configure: what the interpreter says belongs to evals and reseeds. */
extern const struct runtime_listener eval_hears;

#endif
