/* The one way out of a capture that cannot be finished. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "capture.h"

static struct aftermath (*leave_all)(void);

void fail_leaves_by(struct aftermath (*leave)(void)) { leave_all = leave; }

static noreturn void end(const char *code, const char *message) {
  struct aftermath after = {.running = true};
  if (leave_all != NULL) after = leave_all();
  char fields[64];
  const char *running = after.running ? "true" : "false";
  snprintf(fields, sizeof fields, "\"running\":%s,\"pivoted\":%u", running, after.pivoted);
  report_error(code, message, fields);
  _exit(1);
}

noreturn void fail(const char *code, const char *format, ...) {
  char message[512];
  va_list rest;
  va_start(rest, format);
  vsnprintf(message, sizeof message, format, rest);
  va_end(rest);
  end(code, message);
}

noreturn void fail_errno(const char *what, const char *path) {
  int error = errno;
  const char *code = error == ENOSPC || error == EDQUOT ? CODE_DISK_FULL : CODE_SYSTEM;
  fail(code, "%s: %s: %s", path, what, strerror(error));
}
