#include "base.h"

#include <string.h>

static struct base base;

struct base *base_get(void) {
  if (!base.env.list) {
    env_init(&base.env);
    env_set(&base.env, "PATH", PATH_DEFAULT);
    base.user = xstrdup("");
    base.cwd = xstrdup("/");
  }
  return &base;
}

const char *base_command(const struct json *extra, const char *user_spec, struct env *env,
                         struct user *user) {
  struct base *b = base_get();
  if (!user_resolve(user_spec ? user_spec : b->user, user)) return "bad_user";
  env_copy(env, &b->env);
  if (!env_merge(env, extra)) {
    env_free(env);
    return "bad_request";
  }
  if (!env_get(env, "HOME")) env_set(env, "HOME", user->home);
  return NULL;
}
