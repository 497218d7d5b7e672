#include "tap.h"

#include <stdarg.h>
#include <stdio.h>

static int count;
static int failures;

bool check(bool passed, const char *format, ...) {
  va_list args;
  va_start(args, format);
  printf("%s %d - ", passed ? "ok" : "not ok", ++count);
  vprintf(format, args);
  printf("\n");
  fflush(stdout);
  va_end(args);
  failures += !passed;
  return passed;
}

void note(const char *format, ...) {
  va_list args;
  va_start(args, format);
  printf("# ");
  vprintf(format, args);
  printf("\n");
  va_end(args);
}

void skip(const char *name, const char *why) { printf("ok %d - %s # SKIP %s\n", ++count, name, why); }

int tap_end(void) {
  printf("1..%d\n# %d passed, %d failed\n", count, count - failures, failures);
  return failures ? 1 : 0;
}
