#include <string.h>

#include "base64.h"
#include "env.h"
#include "recipe.h"
#include "tap.h"
#include "unit.h"

static void base64(void) {
  uint8_t out[8];
  static const char *const bad[] = {"A", "AA", "AAA", "A===", "====", "AA=A", "AB==", "AAB=",
                                    "A A=", "AAAA\n", "AA-_"};
  check(base64_decode("", 0, out, 8) == 0, "base64 of nothing");
  check(base64_decode("Zm9vYmE=", 8, out, 8) == 5 && memcmp(out, "fooba", 5) == 0, "base64 with =");
  check(base64_decode("Zm9vYg==", 8, out, 8) == 4 && memcmp(out, "foob", 4) == 0, "base64 with ==");
  check(base64_decode("+/+/", 4, out, 8) == 3 && out[0] == 0xfb, "base64 uses + and /");
  check(base64_decode("AAAAAAAAAAAA", 12, out, 8) == -1, "base64 over the bound");
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    check(base64_decode(bad[i], strlen(bad[i]), out, 8) == -1, "base64 refuses case %zu", i);
  }
}

static void recipe(void) {
  static const char text[] = "# note\nA=1\n  B = two words \nC=\"quoted # x\"\r\nD='single'\n"
                             "export E=5\nnonsense\n=x\nF=\"open\nG=\n";
  struct env e;
  env_init(&e);
  recipe_parse(&e, text, sizeof text - 1);
  check(strcmp(env_get(&e, "A"), "1") == 0, "recipe: plain");
  check(strcmp(env_get(&e, "B"), "two words") == 0, "recipe: trimmed");
  check(strcmp(env_get(&e, "C"), "quoted # x") == 0, "recipe: double quotes");
  check(strcmp(env_get(&e, "D"), "single") == 0, "recipe: single quotes");
  check(strcmp(env_get(&e, "E"), "5") == 0, "recipe: export");
  check(strcmp(env_get(&e, "F"), "\"open") == 0, "recipe: an open quote stays");
  check(strcmp(env_get(&e, "G"), "") == 0 && e.count == 7, "recipe: empty values, no nonsense");
  check(!env_set(&e, "", "x") && !env_set(&e, "a=b", "x"), "env refuses bad keys");
  check(env_set(&e, "A", "9") && strcmp(env_get(&e, "A"), "9") == 0 && e.count == 7, "env replaces");
  env_free(&e);
}

static void words(void) {
  char **w = words_split("  a 'b c'  \"d \\\" \\x\" e\\ f '' g\"h\"'i' ");
  static const char *const expected[] = {"a", "b c", "d \" \\x", "e f", "", "ghi"};
  size_t n = 0;
  while (w && w[n]) n++;
  bool same = n == 6;
  for (size_t i = 0; same && i < 6; i++) same = strcmp(w[i], expected[i]) == 0;
  check(same, "words are split as a shell does");
  words_free(w);
  check(words_split("a 'b") == NULL && words_split("\"") == NULL, "open quotes are refused");
}

void unit_text(void) {
  base64();
  recipe();
  words();
}
