/* Reseeds the random generators of the warm interpreter after a fork. */
#ifndef FORKD_RESEED_H
#define FORKD_RESEED_H

#include <stdbool.h>

#include "json.h"

struct reseed_result {
  bool ok;
  bool pending;       /* an eval runs: it happens right after it, before the next one */
  struct {
    const char *json; /* names of what was reseeded, a JSON array */
    size_t len;
  } names;
  const char *error;
};

typedef void reseed_fn(const struct reseed_result *result);

/* `later`: an eval runs, and it happens right after it, in reseed_send_pending. `done` is called
 * once, maybe before this returns. A runtime that cannot be reseeded is killed: it
 * starts cold, with a state of its own. */
void reseed_runtime(const char *seed_hex, bool later, reseed_fn *done);
/* True when `id` belongs to a reseed, which is then over. */
bool reseed_answer(const struct json *id, const struct json *root);
/* No eval runs: what waited for that is sent, before the next one. */
void reseed_send_pending(void);
void reseed_runtime_gone(void);

#endif
