#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base64.h"
#include "recipe.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct env env;
  uint8_t out[64];
  char *text = xstrndup((const char *)data, size);
  env_init(&env);
  recipe_parse(&env, text, size);
  env_free(&env);
  words_free(words_split(text));
  base64_decode(text, size, out, sizeof out);
  free(text);
  return 0;
}
