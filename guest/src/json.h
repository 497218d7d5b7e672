/* A small bounded JSON reader (RFC 8259) and writer. */
#ifndef FORKD_JSON_H
#define FORKD_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"

enum json_type { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

/* One value. `str` is NUL-terminated but may hold NULs inside: compare `len` with strlen. */
struct json {
  enum json_type type;
  bool boolean;
  double number;
  const char *str;
  size_t len;
  const char *key;
  size_t key_len;
  const char *raw; /* the value's own text, inside the parsed text */
  size_t raw_len;
  size_t count; /* members of an array or object */
  struct json *child;
  struct json *next;
};

struct json_doc {
  const struct json *root;
  void *blocks;
  size_t nodes;
};

/* Parses all of `text`, which must outlive the doc. Deeper than JSON_DEPTH_MAX, more than
 * JSON_NODES_MAX values, invalid UTF-8 and trailing text are errors; a lone surrogate escape
 * becomes U+FFFD. Returns 0, or -1 with nothing to free. */
int json_parse(struct json_doc *doc, const char *text, size_t len);
void json_free(struct json_doc *doc);

/* Last member named `key`, or NULL when absent or not an object. */
const struct json *json_get(const struct json *object, const char *key);
/* A string member without NUL bytes; NULL when absent or other. */
const char *json_get_string(const struct json *object, const char *key);
/* A string value without NUL bytes, or NULL. */
const char *json_string(const struct json *value);
/* An integer member within [min, max]; false when absent, not whole or out of range. */
bool json_get_uint(const struct json *object, const char *key, uint64_t max, uint64_t *out);
/* True when the member is absent or null. */
bool json_absent(const struct json *object, const char *key);

/* Writer: appends to `out`; overflow shows in out->overflow. */
struct jw {
  struct buf *out;
  bool comma;
};

void jw_init(struct jw *w, struct buf *out);
/* Key may be NULL inside arrays and at the top. */
void jw_open(struct jw *w, const char *key, char bracket);
void jw_close(struct jw *w, char bracket);
void jw_text(struct jw *w, const char *key, const char *text, size_t len);
void jw_string(struct jw *w, const char *key, const char *text); /* NULL writes null */
void jw_int(struct jw *w, const char *key, int64_t value);
void jw_ms(struct jw *w, const char *key, double value); /* three decimals */
void jw_bool(struct jw *w, const char *key, bool value);
void jw_null(struct jw *w, const char *key);
void jw_raw(struct jw *w, const char *key, const char *text, size_t len);

#endif
