/* The warm interpreter of the guest: guest/runtime/python.py, as the agent runs it. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bounds.h"
#include "fake.h"
#include "loop.h"

#define PENDING_MAX 4096

static struct watch watch;
static struct buf lines;
static eval_done_fn *on_done;
static uint32_t pending[PENDING_MAX]; /* streams, by id */
static unsigned next_id = 1;

static void become(const char *hostname, int fd) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  /* Without the right to it, the guest has the host's name. */
  if (unshare(CLONE_NEWUTS) == 0 && *hostname) {
    if (sethostname(hostname, strlen(hostname)) < 0) perror("fake: sethostname");
  }
  int null = open("/dev/null", O_RDWR);
  for (int i = 0; i < 3; i++) dup2(null, i);
  dup2(fd, 3);
  closefrom(4);
  execl("/usr/bin/python3", "python3", fake_python, (char *)NULL);
  _exit(127);
}

static void on_line(const char *text, size_t len) {
  struct json_doc doc;
  uint64_t id = 0;
  if (json_parse(&doc, text, len) < 0) return;
  if (json_get_uint(doc.root, "id", PENDING_MAX - 1, &id) && pending[id]) {
    on_done(pending[id], doc.root);
    pending[id] = 0;
  }
  json_free(&doc);
}

static void over(void) {
  loop_unwatch(&watch);
  close(watch.fd);
  for (size_t id = 0; id < PENDING_MAX; id++) {
    if (pending[id]) on_done(pending[id], NULL);
    pending[id] = 0;
  }
}

static void on_input(void *arg, uint32_t events) {
  (void)arg;
  (void)events;
  char data[16384];
  ssize_t n = read(watch.fd, data, sizeof data);
  if (n < 0 && errno == EINTR) return;
  if (n <= 0 || !buf_add(&lines, data, (size_t)n)) {
    over();
    return;
  }
  for (const uint8_t *end; (end = memchr(buf_head(&lines), '\n', lines.len));) {
    size_t len = (size_t)(end - buf_head(&lines));
    on_line((const char *)buf_head(&lines), len);
    buf_consume(&lines, len + 1);
  }
}

bool eval_started(void) { return watch.active; }

bool eval_start(const char *hostname, eval_done_fn *done) {
  int pair[2];
  if (!*fake_python || access(fake_python, R_OK) != 0) return false;
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) return false;
  on_done = done;
  buf_init(&lines, RUNTIME_LINE_BYTES_MAX);
  pid_t child = fork();
  if (child == 0) become(hostname, pair[1]);
  close(pair[1]);
  loop_watch(&watch, pair[0], EPOLLIN, on_input, NULL);
  return child > 0;
}

void eval_send(uint32_t stream, const char *code, size_t len) {
  struct buf line;
  struct jw w;
  buf_init(&line, RUNTIME_LINE_BYTES_MAX);
  jw_init(&w, &line);
  jw_open(&w, NULL, '{');
  jw_int(&w, "id", next_id);
  jw_string(&w, "op", "eval");
  jw_text(&w, "code", code, len);
  jw_close(&w, '}');
  buf_puts(&line, "\n");
  pending[next_id] = stream;
  next_id = next_id + 1 < PENDING_MAX ? next_id + 1 : 1;
  while (line.len > 0) {
    ssize_t n = send(watch.fd, buf_head(&line), line.len, MSG_NOSIGNAL);
    if (n <= 0) break;
    buf_consume(&line, (size_t)n);
  }
  buf_free(&line);
}
