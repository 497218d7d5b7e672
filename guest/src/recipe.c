#include "recipe.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "bounds.h"

static void trim(const char **from, const char **to) {
  while (*from < *to && isspace((unsigned char)**from)) (*from)++;
  while (*to > *from && isspace((unsigned char)(*to)[-1])) (*to)--;
}

static void parse_line(struct env *e, const char *from, const char *to) {
  trim(&from, &to);
  if (from == to || *from == '#') return;
  if (to - from > 7 && strncmp(from, "export ", 7) == 0) from += 7;
  const char *equal = memchr(from, '=', (size_t)(to - from));
  if (!equal || equal == from || memchr(from, 0, (size_t)(to - from))) return;
  const char *key_from = from;
  const char *key_to = equal;
  trim(&key_from, &key_to);
  const char *value = equal + 1;
  trim(&value, &to);
  if (to - value >= 2 && (*value == '"' || *value == '\'') && to[-1] == *value) {
    value++;
    to--;
  }
  char *key_text = xstrndup(key_from, (size_t)(key_to - key_from));
  char *value_text = xstrndup(value, (size_t)(to - value));
  env_set(e, key_text, value_text);
  free(key_text);
  free(value_text);
}

void recipe_parse(struct env *e, const char *text, size_t len) {
  const char *end = text + len;
  while (text < end) {
    const char *eol = memchr(text, '\n', (size_t)(end - text));
    if (!eol) eol = end;
    parse_line(e, text, eol);
    text = eol + 1;
  }
}

/* One word from *at into `out`; false when a quote stays open. */
static bool take_word(const char **at, char *out) {
  const char *p = *at;
  char quote = 0;
  for (; *p && (quote || !isspace((unsigned char)*p)); p++) {
    if (quote == '\'') {
      if (*p == '\'') {
        quote = 0;
      } else {
        *out++ = *p;
      }
    } else if (*p == '\\' && p[1] && (!quote || strchr("\"\\$`", p[1]))) {
      *out++ = *++p;
    } else if (*p == '"') {
      quote = quote ? 0 : '"';
    } else if (*p == '\'' && !quote) {
      quote = '\'';
    } else {
      *out++ = *p;
    }
  }
  *out = 0;
  *at = p;
  return !quote;
}

char **words_split(const char *text) {
  char **words = xalloc(sizeof *words);
  size_t count = 0;
  char *word = xalloc(strlen(text) + 1);
  for (;;) {
    while (isspace((unsigned char)*text)) text++;
    if (!*text) break;
    if (count == ARGV_MAX || !take_word(&text, word)) {
      free(word);
      words_free(words);
      return NULL;
    }
    words = xrealloc(words, (count + 2) * sizeof *words);
    words[count++] = xstrdup(word);
    words[count] = NULL;
  }
  free(word);
  return words;
}

void words_free(char **words) {
  if (!words) return;
  for (char **w = words; *w; w++) free(*w);
  free(words);
}
