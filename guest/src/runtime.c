#include "runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base.h"
#include "job.h"
#include "bounds.h"
#include "log.h"
#include "loop.h"
#include "reap.h"
#include "recipe.h"
#include "runtime-find.h"

static struct {
  enum runtime_kind kind;
  enum runtime_state state;
  char **words;      /* imports, or the bridge's command */
  char **candidates; /* interpreters left to try begin at candidates[next] */
  size_t next;
  size_t used; /* the interpreter that answered ready: a restart tries only that */
  bool proven;
  runtime_ready_fn *ready;
  const struct runtime_listener *listener;
  pid_t pid;
  struct watch lines;
  struct watch requests;
  struct watch out[2];
  int out_fd[2];
  struct buf line;
  struct buf queue;
  struct buf tail;
  struct buf failures;
  struct timer deadline;
  char numpy[64];
} rt = {.out_fd = {-1, -1}};

static char dir[512] = "/run/forkd/runtime";

static void try_next(void);

void runtime_set_dir(const char *path) { snprintf(dir, sizeof dir, "%s", path); }
enum runtime_kind runtime_kind(void) { return rt.kind; }
enum runtime_state runtime_state(void) { return rt.state; }
const char *runtime_numpy(void) { return rt.numpy[0] ? rt.numpy : "not-installed"; }

const char *runtime_name(void) {
  if (rt.kind == RUNTIME_NONE) return "none";
  return rt.kind == RUNTIME_PYTHON ? "python" : "node";
}

void runtime_configure(enum runtime_kind kind, char *const *words,
                       const struct runtime_listener *listener) {
  size_t n = 0;
  while (words[n]) n++;
  words_free(rt.words);
  rt.kind = kind;
  rt.listener = listener;
  rt.words = xalloc((n + 1) * sizeof *rt.words);
  for (size_t i = 0; i < n; i++) rt.words[i] = xstrdup(words[i]);
  rt.proven = false;
}

static void close_watch(struct watch *w, int *fd) {
  loop_unwatch(w);
  if (*fd >= 0) close(*fd);
  *fd = -1;
}

static void close_all(void) {
  close_watch(&rt.lines, &rt.lines.fd);
  close_watch(&rt.requests, &rt.requests.fd);
  for (int i = 0; i < 2; i++) close_watch(&rt.out[i], &rt.out_fd[i]);
  buf_free(&rt.line);
  buf_free(&rt.queue);
}

/* The start is over, one way or the other. */
static void conclude(bool ok, const char *text) {
  timer_clear(&rt.deadline);
  runtime_ready_fn *ready = rt.ready;
  rt.ready = NULL;
  if (!ok) rt.state = RUNTIME_OFF;
  if (ready) ready(ok, text);
}

ssize_t runtime_read(int which, void *data, size_t max) {
  int fd = rt.out_fd[which - 1];
  if (fd < 0) return 0;
  ssize_t n = read(fd, data, max);
  if (n > 0) return n;
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
  close_watch(&rt.out[which - 1], &rt.out_fd[which - 1]);
  return 0;
}

static void on_output(void *arg, uint32_t events) {
  (void)events;
  int which = arg == &rt.out[0] ? 1 : 2;
  if (rt.state == RUNTIME_READY) {
    rt.listener->output(which);
    return;
  }
  char chunk[4096];
  ssize_t n = runtime_read(which, chunk, sizeof chunk);
  if (n > 0) buf_add_tail(&rt.tail, chunk, (size_t)n, WARM_TAIL_BYTES);
}

void runtime_watch_output(int which, bool on) {
  int i = which - 1;
  if (rt.out_fd[i] < 0 || rt.out[i].active == on) return;
  if (on) {
    loop_watch(&rt.out[i], rt.out_fd[i], EPOLLIN, on_output, &rt.out[i]);
  } else {
    loop_unwatch(&rt.out[i]);
  }
}

static void ready_line(const char *text, size_t len) {
  struct json_doc doc;
  if (json_parse(&doc, text, len) < 0) {
    buf_printf(&rt.failures, "the first line is not JSON; ");
    runtime_kill();
    return;
  }
  const struct json *ready = json_get(doc.root, "ready");
  if (ready && ready->type == JSON_BOOL && ready->boolean) {
    const char *detail = json_get_string(doc.root, "detail");
    const char *numpy = json_get_string(doc.root, "numpy_version");
    snprintf(rt.numpy, sizeof rt.numpy, "%s", numpy ? numpy : "");
    rt.state = RUNTIME_READY;
    rt.proven = true;
    rt.used = rt.next - 1;
    conclude(true, detail ? detail : "");
  } else {
    const char *error = json_get_string(doc.root, "error");
    buf_printf(&rt.failures, "%.400s; ", error ? error : "not ready");
    runtime_kill();
  }
  json_free(&doc);
}

static void take_lines(void) {
  const char *eol;
  while (rt.line.len && (eol = memchr(buf_head(&rt.line), '\n', rt.line.len))) {
    /* Copied out: what the line causes may end the runtime and its buffers. */
    size_t len = (size_t)(eol - (const char *)buf_head(&rt.line));
    char *text = xstrndup((const char *)buf_head(&rt.line), len);
    buf_consume(&rt.line, len + 1);
    if (rt.state == RUNTIME_READY) {
      rt.listener->line(text, len);
    } else if (rt.state == RUNTIME_STARTING) {
      ready_line(text, len);
    }
    free(text);
  }
}

static void on_lines(void *arg, uint32_t events) {
  (void)arg;
  (void)events;
  static uint8_t chunk[65536];
  ssize_t n = read(rt.lines.fd, chunk, sizeof chunk);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0 || !buf_add(&rt.line, chunk, (size_t)n)) {
    loop_unwatch(&rt.lines);
    runtime_kill();
    return;
  }
  take_lines();
}

static void on_requests(void *arg, uint32_t events) {
  (void)arg;
  (void)events;
  while (rt.queue.len > 0) {
    ssize_t n = write(rt.requests.fd, buf_head(&rt.queue), rt.queue.len);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) break;
    if (n < 0) {
      loop_unwatch(&rt.requests);
      runtime_kill();
      return;
    }
    buf_consume(&rt.queue, (size_t)n);
  }
  if (rt.queue.len == 0) {
    loop_unwatch(&rt.requests);
  } else if (!rt.requests.active) {
    loop_watch(&rt.requests, rt.requests.fd, EPOLLOUT, on_requests, NULL);
  }
}

void runtime_send(const void *line, size_t len) {
  if (rt.state != RUNTIME_READY) return;
  buf_add(&rt.queue, line, len);
  on_requests(NULL, 0);
}

void runtime_interrupt(void) {
  if (rt.pid > 1) kill(rt.pid, SIGINT);
}

void runtime_kill(void) {
  if (rt.pid > 1) kill(-rt.pid, SIGKILL);
}

static void note_failure(int status) {
  const char *name = rt.kind == RUNTIME_BRIDGE ? rt.words[0] : rt.candidates[rt.next - 1];
  if (rt.failures.len == 0 && WIFEXITED(status)) {
    buf_printf(&rt.failures, "exit code %d; ", WEXITSTATUS(status));
  }
  char last[512];
  snprintf(last, sizeof last, " (%.400s) ", name);
  buf_puts(&rt.failures, last);
}

static void on_death(void *arg, int status) {
  (void)arg;
  enum runtime_state was = rt.state;
  char chunk[4096];
  ssize_t n;
  if (was == RUNTIME_READY) {
    /* What it printed last still belongs to the running eval. */
    rt.listener->output(1);
    rt.listener->output(2);
  } else {
    for (int which = 1; which <= 2; which++) {
      for (int i = 0; i < 16 && (n = runtime_read(which, chunk, sizeof chunk)) > 0; i++) {
        buf_add_tail(&rt.tail, chunk, (size_t)n, WARM_TAIL_BYTES);
      }
    }
  }
  rt.pid = 0;
  close_all();
  if (was == RUNTIME_READY) {
    rt.state = RUNTIME_OFF;
    log_line("the %s runtime died (status 0x%x)", runtime_name(), status);
    rt.listener->death();
    return;
  }
  note_failure(status);
  try_next();
}

/* Descriptors of the child at fds, ours at mine: lines, requests, out, err. */
static bool open_fds(int fds[4], int mine[4]) {
  int a[2];
  int b[2];
  int out[2];
  int err[2];
  if (pipe2(err, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0) return false;
  mine[3] = err[0];
  fds[2] = err[1];
  if (rt.kind == RUNTIME_BRIDGE) {
    if (pipe2(a, O_CLOEXEC) < 0) return false;
    fds[0] = a[0];
    fds[1] = out[1];
    fds[3] = -1;
    mine[0] = out[0];
    mine[1] = a[1];
    mine[2] = -1;
  } else {
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, b) < 0) return false;
    fds[0] = -1;
    fds[1] = out[1];
    fds[3] = b[1];
    mine[0] = b[0];
    mine[1] = fcntl(b[0], F_DUPFD_CLOEXEC, 3);
    mine[2] = out[0];
  }
  for (int i = 0; i < 4; i++) {
    if (mine[i] >= 0) set_nonblocking(mine[i]);
  }
  return true;
}

static void adopt(pid_t pid, const int mine[4]) {
  rt.pid = pid;
  reap_on(pid, on_death, NULL);
  buf_init(&rt.line, RUNTIME_LINE_BYTES_MAX);
  buf_init(&rt.queue, 2 * RUNTIME_LINE_BYTES_MAX);
  loop_watch(&rt.lines, mine[0], EPOLLIN, on_lines, NULL);
  rt.requests.fd = mine[1];
  rt.out_fd[0] = mine[2];
  rt.out_fd[1] = mine[3];
  runtime_watch_output(1, true);
  runtime_watch_output(2, true);
}

/* Starts `argv`; false when it cannot be started at all. */
static bool launch(char **argv) {
  struct env env;
  struct user user;
  if (base_command(NULL, NULL, &env, &user)) return false;
  struct spawn what = {.argv = argv, .env = &env, .cwd = base_get()->cwd, .user = &user,
                       .cell = CELL_RUNTIME};
  struct spawn_error error;
  int mine[4];
  if (!open_fds(what.fds, mine)) log_fatal("no descriptors for a runtime: %s", strerror(errno));
  pid_t pid = spawn(&what, &error);
  for (int i = 0; i < 4; i++) {
    if (what.fds[i] >= 0) close(what.fds[i]);
  }
  if (pid > 0) {
    adopt(pid, mine);
  } else {
    char text[400];
    spawn_error_text(&error, &what, text, sizeof text);
    buf_printf(&rt.failures, "%s; ", text);
    for (int i = 0; i < 4; i++) {
      if (mine[i] >= 0) close(mine[i]);
    }
  }
  env_free(&env);
  return pid > 0;
}

static bool launch_candidate(const char *program) {
  if (rt.kind == RUNTIME_BRIDGE) return launch(rt.words);
  size_t n = 0;
  while (rt.words[n]) n++;
  char **argv = xalloc((n + 3) * sizeof *argv);
  char script[600];
  const char *file = rt.kind == RUNTIME_PYTHON ? "python.py" : "node.mjs";
  snprintf(script, sizeof script, "%s/%s", dir, file);
  argv[0] = (char *)program;
  argv[1] = script;
  memcpy(argv + 2, rt.words, n * sizeof *argv);
  bool ok = launch(argv);
  free(argv);
  return ok;
}

static void fail_start(void) {
  char text[WARM_TAIL_BYTES + 1024];
  snprintf(text, sizeof text, "%.800s%s%s", buf_text(&rt.failures), rt.tail.len ? "\n" : "",
           buf_text(&rt.tail));
  conclude(false, text);
}

static void try_next(void) {
  bool once = rt.kind == RUNTIME_BRIDGE || (rt.proven && rt.next > rt.used);
  while (rt.candidates[rt.next] && !(once && rt.next > rt.used)) {
    if (launch_candidate(rt.candidates[rt.next++])) return;
  }
  if (!rt.candidates[0]) buf_printf(&rt.failures, "this image has no %s", runtime_name());
  fail_start();
}

static char **candidates(void) {
  static const char *const python[] = {"python3", "python", NULL};
  static const char *const node[] = {"node", "nodejs", NULL};
  if (rt.kind == RUNTIME_BRIDGE) return words_split("bridge");
  return runtime_find(rt.kind == RUNTIME_PYTHON ? python : node);
}

static void on_deadline(void *arg) {
  (void)arg;
  runtime_kill();
}

void runtime_start(runtime_ready_fn *ready, uint64_t timeout_ms) {
  rt.state = RUNTIME_STARTING;
  rt.ready = ready;
  buf_free(&rt.tail);
  buf_free(&rt.failures);
  buf_init(&rt.tail, WARM_TAIL_BYTES);
  buf_init(&rt.failures, 8192);
  if (!rt.proven) {
    words_free(rt.candidates);
    rt.candidates = candidates();
    rt.used = 0;
  }
  rt.next = rt.used;
  timer_set(&rt.deadline, timeout_ms, on_deadline, NULL);
  try_next();
}
