#include "tcp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bounds.h"
#include "log.h"
#include "loop.h"
#include "tcp-ops.h"

static struct watch listener;
static int listen_fd = -1;
static bool wanted = true;
static unsigned served;

static void on_connection(void *arg, uint32_t events);

/* Not watched while shut or full: connections wait in the kernel's queue. */
void tcp_accept(bool on) {
  wanted = on;
  if (listen_fd < 0) return;
  bool watch = on && served < TCP_CONNECTIONS_MAX;
  if (watch && !listener.active) loop_watch(&listener, listen_fd, EPOLLIN, on_connection, NULL);
  if (!watch) loop_unwatch(&listener);
}

static void on_closed(void) {
  served--;
  tcp_accept(wanted);
}

static void on_connection(void *arg, uint32_t events) {
  static const struct conn_owner owner = {tcp_request, on_closed};
  (void)arg;
  (void)events;
  while (served < TCP_CONNECTIONS_MAX) {
    int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    served++;
    conn_open(fd, &owner);
  }
  tcp_accept(wanted);
}

void tcp_resume(void) { conns_resume(); }

void tcp_start(unsigned port) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  int on = 1;
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  at.sin_addr.s_addr = htonl(INADDR_ANY);
  if (fd >= 0) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(fd, TCP_BACKLOG) < 0) {
    log_line("no TCP door on port %u: %s", port, strerror(errno));
    if (fd >= 0) close(fd);
    return;
  }
  listen_fd = fd;
  tcp_accept(wanted);
}
