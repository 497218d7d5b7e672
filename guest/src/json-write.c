#include <stdio.h>
#include <string.h>

#include "json.h"
#include "utf8.h"

void jw_init(struct jw *w, struct buf *out) {
  w->out = out;
  w->comma = false;
}

/* A text in quotes; bytes that are not UTF-8 become U+FFFD each. */
static void quoted(struct buf *out, const char *text, size_t len) {
  const uint8_t *p = (const uint8_t *)text;
  const uint8_t *end = p + len;
  buf_add(out, "\"", 1);
  const uint8_t *run = p;
  while (p < end) {
    size_t n = utf8_length(p, (size_t)(end - p));
    if (n > 1 || (n == 1 && *p >= 0x20 && *p != '"' && *p != '\\' && *p != 0x7f)) {
      p += n;
      continue;
    }
    buf_add(out, run, (size_t)(p - run));
    char code[8];
    if (n == 0) {
      buf_add(out, "\xef\xbf\xbd", 3);
    } else if (*p == '"' || *p == '\\') {
      code[0] = '\\';
      code[1] = (char)*p;
      buf_add(out, code, 2);
    } else if (*p == '\n') {
      buf_add(out, "\\n", 2);
    } else {
      snprintf(code, sizeof code, "\\u%04x", *p);
      buf_add(out, code, 6);
    }
    run = ++p;
  }
  buf_add(out, run, (size_t)(p - run));
  buf_add(out, "\"", 1);
}

static void lead(struct jw *w, const char *key) {
  if (w->comma) buf_add(w->out, ",", 1);
  w->comma = true;
  if (!key) return;
  quoted(w->out, key, strlen(key));
  buf_add(w->out, ":", 1);
}

void jw_open(struct jw *w, const char *key, char bracket) {
  lead(w, key);
  buf_add(w->out, &bracket, 1);
  w->comma = false;
}

void jw_close(struct jw *w, char bracket) {
  buf_add(w->out, &bracket, 1);
  w->comma = true;
}

void jw_text(struct jw *w, const char *key, const char *text, size_t len) {
  lead(w, key);
  quoted(w->out, text, len);
}

void jw_string(struct jw *w, const char *key, const char *text) {
  if (text) {
    jw_text(w, key, text, strlen(text));
  } else {
    jw_null(w, key);
  }
}

void jw_int(struct jw *w, const char *key, int64_t value) {
  lead(w, key);
  buf_printf(w->out, "%lld", (long long)value);
}

void jw_ms(struct jw *w, const char *key, double value) {
  lead(w, key);
  buf_printf(w->out, "%.3f", value);
}

void jw_bool(struct jw *w, const char *key, bool value) {
  lead(w, key);
  buf_puts(w->out, value ? "true" : "false");
}

void jw_null(struct jw *w, const char *key) {
  lead(w, key);
  buf_puts(w->out, "null");
}

void jw_raw(struct jw *w, const char *key, const char *text, size_t len) {
  lead(w, key);
  buf_add(w->out, text, len);
}
