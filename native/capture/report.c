/* Events on stdout. That the reader has gone is learned from stdin; a failed write is no matter. */
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "capture.h"

enum { line_max = 2048 };

static void put(const char *line, size_t length) {
  while (length > 0) {
    ssize_t wrote = write(STDOUT_FILENO, line, length);
    if (wrote <= 0) return;
    line += wrote;
    length -= (size_t)wrote;
  }
}

/* One call writes one line: less than PIPE_BUF, so lines of two threads do not mix. */
void report(const char *event, const char *format, ...) {
  char fields[line_max];
  va_list rest;
  va_start(rest, format);
  vsnprintf(fields, sizeof fields, format, rest);
  va_end(rest);
  char line[line_max + 128];
  const char *comma = fields[0] == '\0' ? "" : ",";
  int length = snprintf(line, sizeof line, "{\"event\":\"%s\"%s%s}\n", event, comma, fields);
  if (length > 0 && (size_t)length < sizeof line) put(line, (size_t)length);
}

void report_error(const char *code, const char *message, const char *fields) {
  char escaped[1024];
  json_escape(message, escaped, sizeof escaped);
  report("error", "\"code\":\"%s\",\"message\":\"%s\",%s", code, escaped, fields);
}
