#include "tcp-conn.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bounds.h"
#include "hold.h"
#include "loop.h"

struct conn {
  struct conn *next_waiting;
  const struct conn_owner *owner;
  bool waiting;  /* its request came during a hold */
  size_t request; /* bytes of it in `in` */
  struct watch watch;
  struct timer deadline;
  struct buf in;
  struct buf out;
  struct jw writer;
  void (*forget)(void *work);
  void *work;
};

static struct conn *waiting; /* the last that came first */

static void stop_waiting(struct conn *c) {
  for (struct conn **at = &waiting; c->waiting && *at; at = &(*at)->next_waiting) {
    if (*at != c) continue;
    *at = c->next_waiting;
    c->waiting = false;
    return;
  }
}

static void close_conn(struct conn *c) {
  stop_waiting(c);
  if (c->forget) c->forget(c->work);
  timer_clear(&c->deadline);
  loop_unwatch(&c->watch);
  close(c->watch.fd);
  buf_free(&c->in);
  buf_free(&c->out);
  void (*closed)(void) = c->owner->closed;
  free(c);
  closed();
}

static void on_deadline(void *arg) { close_conn(arg); }

static void write_out(struct conn *c) {
  while (c->out.len > 0) {
    ssize_t n = send(c->watch.fd, buf_head(&c->out), c->out.len, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) {
      loop_events(&c->watch, EPOLLOUT);
      return;
    }
    if (n < 0) break;
    buf_consume(&c->out, (size_t)n);
  }
  close_conn(c);
}

struct jw *conn_reply(struct conn *c) {
  buf_clear(&c->out);
  jw_init(&c->writer, &c->out);
  jw_open(&c->writer, NULL, '{');
  return &c->writer;
}

void conn_send(struct conn *c) {
  c->forget = NULL;
  jw_close(&c->writer, '}');
  buf_puts(&c->out, "\n");
  timer_set(&c->deadline, TCP_REPLY_MS, on_deadline, c);
  write_out(c);
}

void conn_error(struct conn *c, const char *format, ...) {
  char text[1024];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  struct jw *w = conn_reply(c);
  jw_string(w, "error", text);
  jw_int(w, "exit_code", 1);
  conn_send(c);
}

void conn_wait(struct conn *c, void (*forget)(void *work), void *work) {
  c->forget = forget;
  c->work = work;
}

static void wait_for_thaw(struct conn *c, size_t len) {
  c->request = len;
  c->waiting = true;
  c->next_waiting = waiting;
  waiting = c;
}

static void serve_line(struct conn *c, size_t len) {
  struct json_doc doc;
  timer_clear(&c->deadline);
  /* Only errors and the end of both ways are still of interest. */
  loop_events(&c->watch, 0);
  if (hold_is_on()) {
    wait_for_thaw(c, len);
    return;
  }
  char *line = xstrndup((const char *)buf_head(&c->in), len);
  buf_free(&c->in);
  if (json_parse(&doc, line, len) < 0) {
    conn_error(c, "the request is not valid JSON");
  } else {
    c->owner->request(c, doc.root);
    json_free(&doc);
  }
  free(line);
}

void conns_resume(void) {
  while (waiting) {
    struct conn *c = waiting;
    stop_waiting(c);
    serve_line(c, c->request);
  }
}

static void read_in(struct conn *c) {
  uint8_t chunk[16384];
  ssize_t n = read(c->watch.fd, chunk, sizeof chunk);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n < 0 || (n == 0 && c->in.len == 0)) {
    close_conn(c);
    return;
  }
  if (!buf_add(&c->in, chunk, (size_t)n)) {
    conn_error(c, "the request is over %u bytes", TCP_REQUEST_BYTES_MAX);
    return;
  }
  const uint8_t *eol = memchr(buf_head(&c->in), '\n', c->in.len);
  if (eol) {
    serve_line(c, (size_t)(eol - buf_head(&c->in)));
  } else if (n == 0) {
    serve_line(c, c->in.len);
  }
}

static void on_conn(void *arg, uint32_t events) {
  struct conn *c = arg;
  if (c->watch.events & EPOLLIN) {
    read_in(c);
  } else if (c->watch.events & EPOLLOUT) {
    write_out(c);
  } else if (events & (EPOLLHUP | EPOLLERR)) {
    close_conn(c);
  }
}

void conn_open(int fd, const struct conn_owner *owner) {
  struct conn *c = xalloc(sizeof *c);
  c->owner = owner;
  buf_init(&c->in, TCP_REQUEST_BYTES_MAX);
  buf_init(&c->out, 8 * TCP_CAPTURE_BYTES_MAX * 2);
  loop_watch(&c->watch, fd, EPOLLIN, on_conn, c);
  timer_set(&c->deadline, TCP_REQUEST_MS, on_deadline, c);
}
