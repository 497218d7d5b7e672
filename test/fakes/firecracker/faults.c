/*
 * fake.conf beside the program, read at the start and at each request, a line each:
 *
 *   version 1.16.1
 *   log FILE                  appends each request as a line of JSON
 *   python FILE               the runtime of evals, see guest/runtime/python.py
 *   before STEP ACTION [ARG]  STEP is `start`, or METHOD,PATH
 *   after STEP ACTION [ARG]   the request is done, and then it goes wrong
 *
 * ACTION: fail WORDS, lose WORDS (fails, and the record of written pages is gone), hang, crash,
 * slow MS, drop (no answer, the connection ends).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fake.h"

unsigned fake_version = 11601;
const char *fake_version_text = "1.16.1";
char fake_python[PATH_BYTES_MAX];

static char text[8192];
static char conf_path[PATH_BYTES_MAX];
static char log_path[PATH_BYTES_MAX];
static char version_text[32];

static void read_text(void) {
  if (!*conf_path) {
    ssize_t n = readlink("/proc/self/exe", conf_path, sizeof conf_path - 16);
    /* A jail has no /proc: the program is in its root. */
    if (n < 0) strcpy(conf_path, "/");
    char *slash = strrchr(conf_path, '/');
    strcpy(slash ? slash + 1 : conf_path, "fake.conf");
  }
  text[0] = 0;
  int fd = open(conf_path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  ssize_t n = read(fd, text, sizeof text - 1);
  text[n > 0 ? n : 0] = 0;
  close(fd);
}

void faults_read(void) {
  read_text();
  char copy[sizeof text];
  strcpy(copy, text);
  char *rest = copy;
  for (char *line; (line = strsep(&rest, "\n"));) {
    unsigned a, b, c;
    if (sscanf(line, "version %u.%u.%u", &a, &b, &c) == 3) {
      fake_version = a * 10000 + b * 100 + c;
      snprintf(version_text, sizeof version_text, "%u.%u.%u", a, b, c);
      fake_version_text = version_text;
    }
    if (strncmp(line, "log ", 4) == 0) snprintf(log_path, sizeof log_path, "%s", line + 4);
    if (strncmp(line, "python ", 7) == 0) snprintf(fake_python, sizeof fake_python, "%s", line + 7);
  }
}

void faults_note(const char *method, const char *path, const char *body, size_t len) {
  read_text();
  if (!*log_path) return;
  int fd = open(log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return;
  struct buf line;
  buf_init(&line, HTTP_BODY_BYTES_MAX + 1024);
  struct jw w;
  jw_init(&w, &line);
  jw_open(&w, NULL, '{');
  jw_string(&w, "method", method);
  jw_string(&w, "path", path);
  if (len > 0) jw_text(&w, "body", body, len);
  jw_close(&w, '}');
  buf_puts(&line, "\n");
  if (write(fd, buf_head(&line), line.len) < 0) perror("fake: log");
  buf_free(&line);
  close(fd);
}

static void pause_ms(long ms) {
  struct timespec t = {ms / 1000, (ms % 1000) * 1000000};
  while (nanosleep(&t, &t) < 0 && errno == EINTR) continue;
}

/* True when the line was for this step; it then says `words`, or there are none. */
static bool apply(const char *action, char words[256]) {
  words[0] = 0;
  if (strncmp(action, "slow ", 5) == 0) {
    pause_ms(atol(action + 5));
    return false;
  }
  if (strcmp(action, "hang") == 0) {
    for (;;) pause_ms(3600000);
  }
  if (strncmp(action, "crash", 5) == 0) {
    fprintf(stderr, "fake: it was told to crash\n");
    abort();
  }
  if (strncmp(action, "lose ", 5) == 0) ram_forget_record();
  bool speaks = strncmp(action, "fail ", 5) == 0 || strncmp(action, "lose ", 5) == 0;
  if (speaks) snprintf(words, 256, "%s", action + 5);
  return true;
}

static bool run(const char *when, const char *step, char words[256]) {
  char copy[sizeof text];
  strcpy(copy, text);
  char *rest = copy;
  char start[340];
  snprintf(start, sizeof start, "%s %s ", when, step);
  for (char *line; (line = strsep(&rest, "\n"));) {
    if (strncmp(line, start, strlen(start)) == 0 && apply(line + strlen(start), words)) return true;
  }
  return false;
}

bool faults_before(const char *step, char words[256]) { return run("before", step, words); }
bool faults_after(const char *step, char words[256]) { return run("after", step, words); }
