#include "json.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bounds.h"
#include "utf8.h"

/* Values and decoded strings live in blocks that are freed together. */
struct block {
  struct block *next;
  size_t used;
  size_t size;
};

struct parser {
  const char *p;
  const char *end;
  struct json_doc *doc;
  int depth;
};

static void *take(struct json_doc *doc, size_t size) {
  struct block *b = doc->blocks;
  size = (size + 15) & ~(size_t)15;
  if (!b || b->size - b->used < size) {
    size_t room = size > 4096 ? size : 4096;
    b = xalloc(sizeof *b + 16 + room);
    b->size = room;
    b->next = doc->blocks;
    doc->blocks = b;
  }
  void *at = (char *)b + ((sizeof *b + 15) & ~(size_t)15) + b->used;
  b->used += size;
  memset(at, 0, size);
  return at;
}

static void skip_space(struct parser *s) {
  while (s->p < s->end && (*s->p == ' ' || *s->p == '\t' || *s->p == '\n' || *s->p == '\r')) s->p++;
}

static bool hex4(struct parser *s, uint32_t *out) {
  if (s->end - s->p < 4) return false;
  uint32_t v = 0;
  for (int i = 0; i < 4; i++) {
    char c = *s->p++;
    int d = c >= '0' && c <= '9'   ? c - '0'
            : c >= 'a' && c <= 'f' ? c - 'a' + 10
            : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                   : -1;
    if (d < 0) return false;
    v = v << 4 | (uint32_t)d;
  }
  *out = v;
  return true;
}

static char *put_utf8(char *out, uint32_t c) {
  if (c < 0x80) {
    *out++ = (char)c;
  } else if (c < 0x800) {
    *out++ = (char)(0xc0 | c >> 6);
    *out++ = (char)(0x80 | (c & 0x3f));
  } else if (c < 0x10000) {
    *out++ = (char)(0xe0 | c >> 12);
    *out++ = (char)(0x80 | (c >> 6 & 0x3f));
    *out++ = (char)(0x80 | (c & 0x3f));
  } else {
    *out++ = (char)(0xf0 | c >> 18);
    *out++ = (char)(0x80 | (c >> 12 & 0x3f));
    *out++ = (char)(0x80 | (c >> 6 & 0x3f));
    *out++ = (char)(0x80 | (c & 0x3f));
  }
  return out;
}

/* After "\u": a scalar value, a pair, or U+FFFD for half a pair. */
static bool unicode_escape(struct parser *s, uint32_t *out) {
  uint32_t hi;
  uint32_t lo;
  if (!hex4(s, &hi)) return false;
  *out = hi;
  if (hi < 0xd800 || hi > 0xdfff) return true;
  *out = 0xfffd;
  if (hi > 0xdbff || s->end - s->p < 6 || s->p[0] != '\\' || s->p[1] != 'u') return true;
  const char *mark = s->p;
  s->p += 2;
  if (!hex4(s, &lo)) return false;
  if (lo >= 0xdc00 && lo <= 0xdfff) {
    *out = 0x10000 + ((hi - 0xd800) << 10) + (lo - 0xdc00);
  } else {
    s->p = mark;
  }
  return true;
}

static bool escape(struct parser *s, char **out) {
  if (s->p == s->end) return false;
  uint32_t c;
  switch (*s->p++) {
    case '"': c = '"'; break;
    case '\\': c = '\\'; break;
    case '/': c = '/'; break;
    case 'b': c = '\b'; break;
    case 'f': c = '\f'; break;
    case 'n': c = '\n'; break;
    case 'r': c = '\r'; break;
    case 't': c = '\t'; break;
    case 'u':
      if (!unicode_escape(s, &c)) return false;
      break;
    default: return false;
  }
  *out = put_utf8(*out, c);
  return true;
}

/* At the opening quote. A decoded string is never longer than its text. */
static bool string(struct parser *s, const char **str, size_t *len) {
  const char *from = ++s->p;
  const char *q = from;
  while (q < s->end && *q != '"') q += *q == '\\' ? 2 : 1;
  if (q >= s->end) return false;
  char *text = take(s->doc, (size_t)(q - from) + 1);
  char *out = text;
  while (*s->p != '"') {
    if (*s->p == '\\') {
      s->p++;
      if (!escape(s, &out)) return false;
      continue;
    }
    size_t n = utf8_length((const uint8_t *)s->p, (size_t)(s->end - s->p));
    if (n == 0 || (uint8_t)*s->p < 0x20) return false;
    memcpy(out, s->p, n);
    out += n;
    s->p += n;
    if (s->p >= s->end) return false;
  }
  s->p++;
  *str = text;
  *len = (size_t)(out - text);
  return true;
}

static bool digits(struct parser *s) {
  const char *from = s->p;
  while (s->p < s->end && *s->p >= '0' && *s->p <= '9') s->p++;
  return s->p > from;
}

static bool number(struct parser *s, struct json *v) {
  const char *from = s->p;
  if (*s->p == '-') s->p++;
  const char *whole = s->p;
  if (!digits(s) || (*whole == '0' && s->p - whole > 1)) return false;
  if (s->p < s->end && *s->p == '.') {
    s->p++;
    if (!digits(s)) return false;
  }
  if (s->p < s->end && (*s->p == 'e' || *s->p == 'E')) {
    s->p++;
    if (s->p < s->end && (*s->p == '+' || *s->p == '-')) s->p++;
    if (!digits(s)) return false;
  }
  char text[64];
  size_t len = (size_t)(s->p - from);
  if (len >= sizeof text) return false;
  memcpy(text, from, len);
  text[len] = 0;
  v->type = JSON_NUMBER;
  v->number = strtod(text, NULL);
  return isfinite(v->number);
}

static bool word(struct parser *s, const char *text) {
  size_t len = strlen(text);
  if ((size_t)(s->end - s->p) < len || memcmp(s->p, text, len) != 0) return false;
  s->p += len;
  return true;
}

static bool value(struct parser *s, struct json *v);

/* At the opening bracket of an array or object. */
static bool members(struct parser *s, struct json *v) {
  bool object = *s->p++ == '{';
  char close = object ? '}' : ']';
  v->type = object ? JSON_OBJECT : JSON_ARRAY;
  if (++s->depth > JSON_DEPTH_MAX) return false;
  struct json **link = &v->child;
  skip_space(s);
  if (s->p < s->end && *s->p == close) {
    s->p++;
    s->depth--;
    return true;
  }
  for (;;) {
    if (++s->doc->nodes > JSON_NODES_MAX) return false;
    struct json *m = take(s->doc, sizeof *m);
    skip_space(s);
    if (object) {
      if (s->p >= s->end || *s->p != '"' || !string(s, &m->key, &m->key_len)) return false;
      skip_space(s);
      if (s->p >= s->end || *s->p++ != ':') return false;
      skip_space(s);
    }
    if (!value(s, m)) return false;
    *link = m;
    link = &m->next;
    v->count++;
    skip_space(s);
    if (s->p >= s->end) return false;
    char c = *s->p++;
    if (c == close) break;
    if (c != ',') return false;
  }
  s->depth--;
  return true;
}

static bool value(struct parser *s, struct json *v) {
  if (s->p >= s->end) return false;
  v->raw = s->p;
  bool ok;
  switch (*s->p) {
    case '{':
    case '[': ok = members(s, v); break;
    case '"':
      v->type = JSON_STRING;
      ok = string(s, &v->str, &v->len);
      break;
    case 't':
      v->type = JSON_BOOL;
      v->boolean = true;
      ok = word(s, "true");
      break;
    case 'f':
      v->type = JSON_BOOL;
      ok = word(s, "false");
      break;
    case 'n': ok = word(s, "null"); break;
    default: ok = number(s, v);
  }
  v->raw_len = (size_t)(s->p - v->raw);
  return ok;
}

int json_parse(struct json_doc *doc, const char *text, size_t len) {
  memset(doc, 0, sizeof *doc);
  struct parser s = {.p = text, .end = text + len, .doc = doc};
  struct json *root = take(doc, sizeof *root);
  skip_space(&s);
  bool ok = value(&s, root);
  skip_space(&s);
  if (!ok || s.p != s.end) {
    json_free(doc);
    return -1;
  }
  doc->root = root;
  return 0;
}

void json_free(struct json_doc *doc) {
  struct block *b = doc->blocks;
  while (b) {
    struct block *next = b->next;
    free(b);
    b = next;
  }
  memset(doc, 0, sizeof *doc);
}
