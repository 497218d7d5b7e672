#include <stdio.h>
#include <string.h>

#include "json.h"
#include "tap.h"
#include "unit.h"

static bool parses(const char *text, size_t len) {
  struct json_doc doc;
  if (json_parse(&doc, text, len) < 0) return false;
  json_free(&doc);
  return true;
}

static void good(void) {
  static const char *const texts[] = {
      "null", "true", " [ ] ", "{}", "0", "-0.5e+10", "\"\"", "[1,2,[3]]", "{\"a\":{\"b\":null}}",
      "\"\\u00e9\\ud83d\\ude00\\n\"", "\"\xc3\xa9\"", "\"\\ud800\"", "1E5",
      "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]"};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    check(parses(texts[i], strlen(texts[i])), "json takes %s", texts[i]);
  }
}

static void bad(void) {
  static const char *const texts[] = {
      "", "nul", "tru", "[", "]", "[1,]", "{\"a\"}", "{\"a\":}", "{a:1}", "{\"a\":1,}", "01", "1.",
      ".5", "+1", "1e", "\"", "\"\\\"", "\"\\x\"", "\"\\u12\"", "\"\t\"", "1 2", "\"\xff\"",
      "\"\xc0\x80\"", "\"\xed\xa0\x80\"", "1e999", "'a'", "[1}", "\"\\", "\"\\u",
      "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]"};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    check(!parses(texts[i], strlen(texts[i])), "json refuses case %zu", i);
  }
  check(!parses("\"a\0b\"", 5), "json refuses a raw NUL");
}

static void values(void) {
  const char *text = "{\"s\":\"a\\u0000b\",\"n\":3,\"x\":1.5,\"e\":\"\\ud83d\\ude00\\ud800z\","
                     "\"n\":4,\"l\":[1, 2 ]}";
  struct json_doc doc;
  uint64_t n = 0;
  json_parse(&doc, text, strlen(text));
  const struct json *s = json_get(doc.root, "s");
  check(s && s->len == 3 && !json_get_string(doc.root, "s"), "a NUL inside shows in the length");
  check(json_get_uint(doc.root, "n", 10, &n) && n == 4, "the last of two members counts");
  check(!json_get_uint(doc.root, "n", 3, &n) && !json_get_uint(doc.root, "x", 10, &n),
        "numbers out of range or not whole are refused");
  const char *e = json_get_string(doc.root, "e");
  check(e && strcmp(e, "\xf0\x9f\x98\x80\xef\xbf\xbdz") == 0, "pairs join, halves are replaced");
  const struct json *l = json_get(doc.root, "l");
  check(l && l->raw_len == 7 && memcmp(l->raw, "[1, 2 ]", 7) == 0, "raw text is kept");
  json_free(&doc);
}

static void writing(void) {
  struct buf out;
  struct jw w;
  buf_init(&out, 200);
  jw_init(&w, &out);
  jw_open(&w, NULL, '{');
  jw_text(&w, "t", "a\"\\\n\x01\xff\xc3\xa9", 8);
  jw_open(&w, "l", '[');
  jw_int(&w, NULL, -1);
  jw_bool(&w, NULL, true);
  jw_close(&w, ']');
  jw_string(&w, "z", NULL);
  jw_close(&w, '}');
  const char *expected = "{\"t\":\"a\\\"\\\\\\n\\u0001\xef\xbf\xbd\xc3\xa9\",\"l\":[-1,true],\"z\":null}";
  if (!check(strcmp(buf_text(&out), expected) == 0, "json is written")) note("%s", buf_text(&out));
  check(parses(buf_text(&out), out.len), "and read back");
  char big[300];
  memset(big, 'x', sizeof big);
  jw_text(&w, NULL, big, sizeof big);
  check(out.overflow, "the writer's bound shows");
  buf_free(&out);
}

void unit_json(void) {
  good();
  bad();
  values();
  writing();
}
