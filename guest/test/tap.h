/* A test harness of a few lines: prints TAP, remembers failures. */
#ifndef FORKD_TAP_H
#define FORKD_TAP_H

#include <stdbool.h>

/* Prints "ok N - name" or "not ok N - name"; returns `passed`. */
bool check(bool passed, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A line with what was seen, for a failed check. */
void note(const char *format, ...) __attribute__((format(printf, 1, 2)));
void skip(const char *name, const char *why);
/* Prints the plan; the exit code of the test program. */
int tap_end(void);

#endif
