/* An environment: a bounded list of KEY=VALUE texts. */
#ifndef FORKD_ENV_H
#define FORKD_ENV_H

#include <stdbool.h>
#include <stddef.h>

#include "json.h"

#define PATH_DEFAULT "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

struct env {
  char **list; /* NULL-terminated */
  size_t count;
};

void env_init(struct env *e);
void env_free(struct env *e);
void env_copy(struct env *to, const struct env *from);
/* Sets or replaces; false when the key is empty or holds '=', or ENV_MAX is reached. */
bool env_set(struct env *e, const char *key, const char *value);
const char *env_get(const struct env *e, const char *key);
/* Adds the members of a JSON object of strings; false when one is not a valid pair. */
bool env_merge(struct env *e, const struct json *object);

#endif
