#include "runtime-find.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base.h"
#include "bounds.h"
#include "recipe.h"

static bool known(char **list, const char *real) {
  for (; *list; list++) {
    char other[PATH_MAX];
    if (realpath(*list, other) && strcmp(other, real) == 0) return true;
  }
  return false;
}

static void add_dir(char **list, size_t *count, const char *dir, const char *const *names) {
  for (; *names && *count < RUNTIME_CANDIDATES_MAX; names++) {
    char path[PATH_MAX];
    char real[PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/%s", dir, *names);
    if (n >= (int)sizeof path || access(path, X_OK) < 0 || !realpath(path, real)) continue;
    if (!known(list, real)) list[(*count)++] = xstrdup(path);
  }
}

char **runtime_find(const char *const *names) {
  char **list = xalloc((RUNTIME_CANDIDATES_MAX + 1) * sizeof *list);
  size_t count = 0;
  const char *path = env_get(&base_get()->env, "PATH");
  char *dirs = xstrdup(path ? path : PATH_DEFAULT);
  char *rest = dirs;
  for (char *dir; (dir = strsep(&rest, ":"));) {
    if (*dir == '/') add_dir(list, &count, dir, names);
  }
  add_dir(list, &count, "/usr/local/bin", names);
  add_dir(list, &count, "/usr/bin", names);
  free(dirs);
  return list;
}
