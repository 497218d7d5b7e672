/* A reader for the few keys of QEMU's messages that matter, and a writer of strings. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "capture.h"

static const char *skip_blanks(const char *at) {
  while (isspace((unsigned char)*at)) at++;
  return at;
}

/* From an opening quote to behind the closing one; NULL when there is none. */
static const char *skip_string(const char *at) {
  for (at++; *at != '\0'; at++) {
    if (*at == '"') return at + 1;
    if (*at == '\\' && at[1] != '\0') at++;
  }
  return NULL;
}

/* Behind a value: whatever nests in it has as many closing marks as opening ones. */
static const char *skip_value(const char *at) {
  unsigned depth = 0;
  do {
    at = skip_blanks(at);
    if (*at == '\0') return NULL;
    if (*at == '"') {
      at = skip_string(at);
      if (at == NULL) return NULL;
    } else if (*at == '{' || *at == '[') {
      depth++;
      at++;
    } else if (*at == '}' || *at == ']') {
      if (depth == 0) return NULL;
      depth--;
      at++;
    } else if (*at == ',' || *at == ':') {
      if (depth == 0) return NULL;
      at++;
    } else {
      at += strcspn(at, ",:]}[{\" \t\r\n");
    }
  } while (depth > 0);
  return at;
}

static bool is_key(const char *at, const char *key) {
  size_t length = strlen(key);
  return strncmp(at + 1, key, length) == 0 && at[1 + length] == '"';
}

const char *json_get(const char *object, const char *key) {
  const char *at = skip_blanks(object);
  if (*at++ != '{') return NULL;
  for (;;) {
    at = skip_blanks(at);
    if (*at != '"') return NULL;
    bool found = is_key(at, key);
    at = skip_string(at);
    if (at == NULL) return NULL;
    at = skip_blanks(at);
    if (*at++ != ':') return NULL;
    at = skip_blanks(at);
    const char *end = skip_value(at);
    if (end == NULL) return NULL;
    if (found) return at;
    at = skip_blanks(end);
    if (*at++ != ',') return NULL;
  }
}

bool json_text(const char *value, char *out, size_t size) {
  if (value == NULL || *value != '"' || size == 0) return false;
  size_t used = 0;
  for (const char *at = value + 1; *at != '"'; at++) {
    if (*at == '\\') at++;
    if (*at == '\0') return false;
    if (used + 1 < size) out[used++] = *at;
  }
  out[used] = '\0';
  return true;
}

bool json_number(const char *value, uint64_t *out) {
  if (value == NULL || !isdigit((unsigned char)*value)) return false;
  errno = 0;
  *out = strtoull(value, NULL, 10);
  return errno == 0;
}

void json_escape(const char *text, char *out, size_t size) {
  size_t used = 0;
  for (; *text != '\0'; text++) {
    unsigned char byte = (unsigned char)*text;
    char escaped[8] = {(char)byte, '\0'};
    if (byte == '"' || byte == '\\') snprintf(escaped, sizeof escaped, "\\%c", byte);
    /* What is not ASCII may be cut or be no UTF-8 at all. */
    else if (byte < 0x20 || byte > 0x7e) snprintf(escaped, sizeof escaped, "\\u%04x", byte);
    size_t length = strlen(escaped);
    if (used + length >= size) break;
    memcpy(out + used, escaped, length);
    used += length;
  }
  out[used] = '\0';
}
