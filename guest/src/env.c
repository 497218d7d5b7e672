#include "env.h"

#include <stdlib.h>
#include <string.h>

#include "bounds.h"

void env_init(struct env *e) {
  e->list = xalloc(sizeof *e->list);
  e->count = 0;
}

void env_free(struct env *e) {
  for (size_t i = 0; i < e->count; i++) free(e->list[i]);
  free(e->list);
  e->list = NULL;
  e->count = 0;
}

void env_copy(struct env *to, const struct env *from) {
  to->list = xalloc((from->count + 1) * sizeof *to->list);
  to->count = from->count;
  for (size_t i = 0; i < from->count; i++) to->list[i] = xstrdup(from->list[i]);
}

static size_t find(const struct env *e, const char *key, size_t len) {
  for (size_t i = 0; i < e->count; i++) {
    if (strncmp(e->list[i], key, len) == 0 && e->list[i][len] == '=') return i;
  }
  return e->count;
}

bool env_set(struct env *e, const char *key, const char *value) {
  size_t key_len = strlen(key);
  size_t value_len = strlen(value);
  if (key_len == 0 || strchr(key, '=')) return false;
  size_t at = find(e, key, key_len);
  if (at == e->count && e->count == ENV_MAX) return false;
  char *pair = xalloc(key_len + value_len + 2);
  memcpy(pair, key, key_len);
  pair[key_len] = '=';
  memcpy(pair + key_len + 1, value, value_len);
  if (at < e->count) {
    free(e->list[at]);
  } else {
    e->list = xrealloc(e->list, (e->count + 2) * sizeof *e->list);
    e->list[++e->count] = NULL;
  }
  e->list[at] = pair;
  return true;
}

const char *env_get(const struct env *e, const char *key) {
  size_t len = strlen(key);
  size_t at = find(e, key, len);
  return at < e->count ? e->list[at] + len + 1 : NULL;
}

bool env_merge(struct env *e, const struct json *object) {
  if (!object || object->type == JSON_NULL) return true;
  if (object->type != JSON_OBJECT) return false;
  for (const struct json *m = object->child; m; m = m->next) {
    const char *value = json_string(m);
    if (!value || strlen(m->key) != m->key_len || !env_set(e, m->key, value)) return false;
  }
  return true;
}
