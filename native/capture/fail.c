/* The one way out of a capture that cannot be finished. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "capture.h"

enum { own_files_max = 4 };

static const char *own_files[own_files_max];
static size_t own_file_count;

void own_file(const char *path) {
  if (own_file_count == own_files_max) fail(CODE_SYSTEM, "too many files");
  own_files[own_file_count++] = path;
}

void remove_own_files(void) {
  for (size_t i = 0; i < own_file_count; i++) unlink(own_files[i]);
}

static noreturn void end(const char *code, const char *message) {
  guard_resume();
  bool runs = !guard_has_stopped() || qmp_await_resume();
  tracker_stop();
  remove_own_files();
  char fields[64];
  const char *running = runs ? "true" : "false";
  snprintf(fields, sizeof fields, "\"running\":%s,\"pivoted\":%u", running, qmp_pivoted());
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
