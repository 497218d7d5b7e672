#include <string.h>

#include "json.h"

const struct json *json_get(const struct json *object, const char *key) {
  if (!object || object->type != JSON_OBJECT) return NULL;
  const struct json *found = NULL;
  size_t len = strlen(key);
  for (const struct json *m = object->child; m; m = m->next) {
    if (m->key_len == len && memcmp(m->key, key, len) == 0) found = m;
  }
  return found;
}

const char *json_string(const struct json *value) {
  if (!value || value->type != JSON_STRING || strlen(value->str) != value->len) return NULL;
  return value->str;
}

const char *json_get_string(const struct json *object, const char *key) {
  return json_string(json_get(object, key));
}

bool json_get_uint(const struct json *object, const char *key, uint64_t max, uint64_t *out) {
  const struct json *v = json_get(object, key);
  if (!v || v->type != JSON_NUMBER || v->number < 0 || v->number > (double)max) return false;
  uint64_t n = (uint64_t)v->number;
  if ((double)n != v->number) return false;
  *out = n;
  return true;
}

bool json_absent(const struct json *object, const char *key) {
  const struct json *v = json_get(object, key);
  return !v || v->type == JSON_NULL;
}
