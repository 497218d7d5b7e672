#include "vsock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* It wants the socket types before it. */
#include <linux/vm_sockets.h>

#include "bounds.h"
#include "channel.h"
#include "log.h"
#include "loop.h"

static struct watch door;
static bool (*is_host)(int fd);

unsigned vsock_port(const char *channel) {
  static const char lead[] = "vsock:";
  if (strncmp(channel, lead, sizeof lead - 1) != 0) return 0;
  char *end;
  unsigned long port = strtoul(channel + sizeof lead - 1, &end, 10);
  /* Ports up to 1023 are privileged, and the last one is any (vsock(7)). */
  return *end || port < 1024 || port >= VMADDR_PORT_ANY ? 0 : (unsigned)port;
}

/* Any process of the guest can connect to a port of its own (CID 1): that is no host. */
static bool comes_from_host(int fd) {
  struct sockaddr_vm peer;
  socklen_t len = sizeof peer;
  return getpeername(fd, (struct sockaddr *)&peer, &len) == 0 && peer.svm_cid == VMADDR_CID_HOST;
}

static void on_door(void *arg, uint32_t events) {
  (void)arg;
  (void)events;
  int fd = accept4(door.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0) return;
  if (is_host(fd)) {
    channel_replace(fd);
  } else {
    close(fd);
  }
}

void vsock_serve(int listener, bool (*from_host)(int fd)) {
  is_host = from_host;
  loop_watch(&door, listener, EPOLLIN, on_door, NULL);
}

/* The host learns from it that a fresh guest listens. One that does not care is none of ours. */
static void knock(unsigned port) {
  struct sockaddr_vm to = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = port};
  int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct timeval most = {.tv_sec = VSOCK_KNOCK_MS / 1000};
  if (fd < 0) return;
  setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &most, sizeof most);
  if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0) {
    log_line("the host does not listen on port %u: %s", port, strerror(errno));
  }
  close(fd);
}

void vsock_start(unsigned port) {
  struct sockaddr_vm at = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = port};
  int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(fd, VSOCK_BACKLOG) < 0) {
    log_fatal("cannot listen on vsock port %u: %s", port, strerror(errno));
  }
  vsock_serve(fd, comes_from_host);
  knock(port);
}
