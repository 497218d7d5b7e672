/* What every command starts from: environment, user, directory. Set once by `warm`. */
#ifndef FORKD_BASE_H
#define FORKD_BASE_H

#include "env.h"
#include "user.h"

struct base {
  struct env env;
  char *user;
  char *cwd;
};

struct base *base_get(void);
/* Fills `env` and `user` for one command: the base, then `extra` (JSON object or NULL), then HOME
 * of the account when neither set it. NULL, or the protocol's error code. */
const char *base_command(const struct json *extra, const char *user_spec, struct env *env,
                         struct user *user);

#endif
