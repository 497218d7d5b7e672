/* Firecracker's end of the guest's vsock: `CONNECT <port>`, `OK <port>`, then bytes. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fake.h"
#include "loop.h"

#define GREETING_BYTES_MAX 32

struct link {
  struct watch watch;
  char greeting[GREETING_BYTES_MAX];
  size_t have;
  bool open; /* the guest has taken it */
  bool forgotten; /* by a guest that was reset */
};

static struct watch door;
static bool running;
static bool reset_sent;
static bool gated; /* nothing reaches the guest */
static struct link *current; /* one connection of the host at a time */

void set_nonblocking_fd(int fd) { fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK); }

static void drop(struct link *link) {
  loop_unwatch(&link->watch);
  close(link->watch.fd);
  if (current == link) current = NULL;
  free(link);
}

void vsock_send(const void *data, size_t len) {
  const char *bytes = data;
  while (current && len > 0) {
    ssize_t n = send(current->watch.fd, bytes, len, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    bytes += n;
    len -= (size_t)n;
  }
}

/* False when the guest refuses. */
static bool greet(struct link *link) {
  unsigned port;
  char end;
  if (sscanf(link->greeting, "CONNECT %u%c", &port, &end) != 2 || port != agent_port()) return false;
  link->open = true;
  if (current) drop(current);
  current = link;
  vsock_send("OK 1073741824\n", 14);
  agent_connected();
  return true;
}

static void on_link(void *arg, uint32_t events) {
  struct link *link = arg;
  (void)events;
  uint8_t data[16384];
  size_t want = link->open ? sizeof data : 1;
  ssize_t n = recv(link->watch.fd, data, want, 0);
  if (n < 0 && errno == EINTR) return;
  if (n <= 0 || link->forgotten) {
    drop(link);
  } else if (link->open) {
    agent_received(data, (size_t)n);
  } else {
    link->greeting[link->have++] = (char)data[0];
    bool over = link->have >= GREETING_BYTES_MAX - 1;
    if (over || (data[0] == '\n' && !greet(link))) drop(link);
  }
}

static void on_door(void *arg, uint32_t events) {
  (void)arg;
  (void)events;
  int fd = accept4(door.fd, NULL, NULL, SOCK_CLOEXEC);
  if (fd < 0) return;
  struct link *link = calloc(1, sizeof *link);
  loop_watch(&link->watch, fd, EPOLLIN, on_link, link);
}

static bool address(struct sockaddr_un *to, const char *path) {
  memset(to, 0, sizeof *to);
  to->sun_family = AF_UNIX;
  return snprintf(to->sun_path, sizeof to->sun_path, "%s", path) < (int)sizeof to->sun_path;
}

bool vsock_open(char why[256]) {
  struct sockaddr_un at;
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (!address(&at, vm.vsock) || bind(fd, (struct sockaddr *)&at, sizeof at) < 0 ||
      listen(fd, 16) < 0) {
    snprintf(why, 256, "Error binding to the host-side Unix socket: %s (os error %d)",
             strerror(errno), errno);
    close(fd);
    return false;
  }
  loop_watch(&door, fd, 0, on_door, NULL);
  return true;
}

/* The name goes with it, as with the original. */
void vsock_close(void) {
  if (!door.active) return;
  loop_unwatch(&door);
  close(door.fd);
  unlink(vm.vsock);
}

void vsock_reset(void) { reset_sent = true; }

/*
 * The guest forgets its connections; here it says so only when something still comes by them, a
 * real one may at once. As in 1.16.1, a resume waits for the guest to take note of a reset, whether
 * there was one or not.
 */
void vsock_resume(void) {
  gated = !reset_sent && fake_version <= 11601;
  if (reset_sent && current) {
    current->forgotten = true;
    loop_events(&current->watch, EPOLLIN);
    current = NULL;
  }
  reset_sent = false;
  vsock_run(true);
}

/* A paused guest takes no connection and reads nothing. */
void vsock_run(bool run) {
  running = run;
  uint32_t events = run && !gated ? EPOLLIN : 0;
  if (door.active) loop_events(&door, events);
  if (current) loop_events(&current->watch, events);
}

/* The guest connects to a port of the host: that is a socket of the host's making. */
void vsock_knock(unsigned port) {
  struct sockaddr_un to;
  char path[PATH_BYTES_MAX + 16];
  snprintf(path, sizeof path, "%s_%u", vm.vsock, port);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (address(&to, path) && connect(fd, (struct sockaddr *)&to, sizeof to) < 0) perror("fake: knock");
  close(fd);
}
