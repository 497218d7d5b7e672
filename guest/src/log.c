#include "log.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <unistd.h>

static bool muted;

void log_mute(void) { muted = true; }

static void write_line(const char *prefix, const char *format, va_list args) {
  char line[512];
  int used = snprintf(line, sizeof line, "%s", prefix);
  int n = vsnprintf(line + used, sizeof line - (size_t)used - 1, format, args);
  if (n < 0) return;
  size_t len = strlen(line);
  line[len++] = '\n';
  /* A console that does not take the line is no reason to stop. */
  ssize_t ignored = write(STDERR_FILENO, line, len);
  (void)ignored;
}

void log_line(const char *format, ...) {
  if (muted) return;
  va_list args;
  va_start(args, format);
  write_line("forkd-agent: ", format, args);
  va_end(args);
}

void log_fatal(const char *format, ...) {
  va_list args;
  va_start(args, format);
  write_line("forkd-agent: fatal: ", format, args);
  va_end(args);
  if (getpid() == 1) {
    sync();
    reboot(RB_POWER_OFF);
    for (;;) pause();
  }
  exit(70);
}
