#include "probe.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "files.h"
#include "bounds.h"
#include "loop.h"

static struct timer again;
static struct watch connecting;
static unsigned wait_ms;
static void (*on_ready)(void);
static struct probe *asked;

static void ask(void *arg);

bool probe_parse(struct probe *p, const struct json *ready) {
  memset(p, 0, sizeof *p);
  buf_init(&p->line[0], 65536);
  buf_init(&p->line[1], 65536);
  if (!ready || ready->type == JSON_NULL) return true;
  uint64_t port;
  const char *text;
  if (json_get_uint(ready, "tcp", 65535, &port) && port > 0) {
    p->kind = PROBE_TCP;
    p->port = (unsigned)port;
  } else if ((text = json_get_string(ready, "file")) && *text == '/') {
    p->kind = PROBE_FILE;
    p->text = xstrdup(text);
  } else if ((text = json_get_string(ready, "line")) && *text) {
    p->kind = PROBE_LINE;
    p->text = xstrdup(text);
  } else {
    return false;
  }
  return true;
}

static void yes(void) {
  void (*ready)(void) = on_ready;
  probe_stop(asked);
  if (ready) ready();
}

/* Neither a port nor a file under a directory that may not exist yet can be waited for: asked often
 * at first, then ten times a second, and only while the guest warms up. */
static void later(void) {
  wait_ms = wait_ms * 2 > PROBE_LAST_MS ? PROBE_LAST_MS : wait_ms * 2;
  timer_set(&again, wait_ms, ask, NULL);
}

static void close_connecting(void) {
  if (!connecting.active) return;
  loop_unwatch(&connecting);
  close(connecting.fd);
}

static void on_connected(void *arg, uint32_t events) {
  (void)arg;
  (void)events;
  int error = 0;
  socklen_t len = sizeof error;
  getsockopt(connecting.fd, SOL_SOCKET, SO_ERROR, &error, &len);
  close_connecting();
  if (error == 0) {
    yes();
  } else {
    later();
  }
}

static void ask_tcp(void) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)asked->port)};
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    later();
  } else if (connect(fd, (struct sockaddr *)&to, sizeof to) == 0) {
    close(fd);
    yes();
  } else if (errno == EINPROGRESS) {
    loop_watch(&connecting, fd, EPOLLOUT, on_connected, NULL);
  } else {
    close(fd);
    later();
  }
}

static void ask(void *arg) {
  (void)arg;
  if (asked->kind == PROBE_TCP) {
    ask_tcp();
    return;
  }
  char path[PATH_BYTES_MAX];
  if (files_path(asked->text, path) && access(path, F_OK) == 0) {
    yes();
  } else {
    later();
  }
}

void probe_start(struct probe *p, void (*ready)(void)) {
  if (p->kind != PROBE_TCP && p->kind != PROBE_FILE) return;
  asked = p;
  on_ready = ready;
  wait_ms = PROBE_FIRST_MS;
  timer_set(&again, 0, ask, NULL);
}

void probe_stop(struct probe *p) {
  on_ready = NULL;
  timer_clear(&again);
  close_connecting();
  if (!p) return;
  buf_free(&p->line[0]);
  buf_free(&p->line[1]);
}

static bool line_matches(const struct probe *p, const char *line, size_t len) {
  if (p->kind == PROBE_LINE) return strstr(line, p->text) != NULL;
  struct json_doc doc;
  if (json_parse(&doc, line, len) < 0) return false;
  const struct json *ready = json_get(doc.root, "ready");
  bool yes = ready && ready->type == JSON_BOOL && ready->boolean;
  json_free(&doc);
  return yes;
}

bool probe_output(struct probe *p, int which, const uint8_t *data, size_t len) {
  if (p->kind != PROBE_LINE && p->kind != PROBE_READY_JSON) return false;
  struct buf *b = &p->line[which - 1];
  for (size_t i = 0; i < len; i++) {
    if (data[i] != '\n') {
      /* A line over the bound is cut: nobody waits for so long a text. */
      buf_add(b, data + i, 1);
      continue;
    }
    bool match = b->len && line_matches(p, buf_text(b), b->len);
    buf_clear(b);
    if (match) return true;
  }
  return false;
}
