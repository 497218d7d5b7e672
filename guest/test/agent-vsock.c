#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent-tests.h"
#include "frame.h"
#include "identity.h"
#include "log.h"
#include "loop.h"
#include "reap.h"
#include "session.h"
#include "tap.h"
#include "vsock.h"

#define WAIT_MS 5000
#define HELLO                                                                                     \
  "{\"op\":\"hello\",\"protocol\":1,\"echo_b64\":\"ZWNob2VjaG9lY2hvZWNobw==\","                   \
  "\"next_token_b64\":\"dG9rZW50b2tlbnRva2VuVA==\"}"

static struct sockaddr_un address = {.sun_family = AF_UNIX};

static bool anyone(int fd) { return fd >= 0; }
static bool nobody(int fd) { return fd < 0; }

static pid_t start(bool (*from_host)(int fd)) {
  snprintf(address.sun_path + 1, 40, "forkd-test-%d", (int)getpid());
  int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 8) < 0) {
    return -1;
  }
  fflush(stdout);
  pid_t agent = fork();
  if (agent == 0) {
    log_mute();
    identity_simulate();
    loop_init();
    reap_init();
    session_start(-1, false);
    vsock_serve(listener, from_host);
    loop_run();
    _exit(0);
  }
  close(listener);
  return agent;
}

static void stop(pid_t agent) {
  kill(agent, SIGKILL);
  waitpid(agent, NULL, 0);
}

static int dial(void) {
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  return connect(fd, (struct sockaddr *)&address, sizeof address) == 0 ? fd : -1;
}

static void say_hello(int fd, const char *token) {
  uint8_t header[FRAME_HEADER_BYTES];
  frame_header(header, FRAME_REQUEST, 0, sizeof HELLO - 1);
  bool ok = write(fd, token, TOKEN_BYTES) == TOKEN_BYTES &&
            write(fd, header, sizeof header) == (ssize_t)sizeof header &&
            write(fd, HELLO, sizeof HELLO - 1) == (ssize_t)sizeof HELLO - 1;
  if (!ok) note("the agent does not read");
}

/* Reads until `part` was seen; false at the end of the connection. */
static bool hears(int fd, const char *part) {
  char seen[4096];
  size_t have = 0;
  for (;;) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (poll(&p, 1, WAIT_MS) <= 0) return false;
    ssize_t n = read(fd, seen + have, sizeof seen - 1 - have);
    if (n <= 0) return false;
    have += (size_t)n;
    if (memmem(seen, have, part, strlen(part))) return true;
  }
}

static bool is_closed(int fd) {
  char byte;
  struct pollfd p = {.fd = fd, .events = POLLIN};
  return poll(&p, 1, WAIT_MS) > 0 && read(fd, &byte, 1) <= 0;
}

static void ports(void) {
  check(vsock_port("vsock:1024") == 1024, "vsock: a port");
  check(vsock_port("dev.forkd.agent") == 0, "vsock: a virtio-serial port is none");
  check(vsock_port("vsock:") == 0 && vsock_port("vsock:x") == 0 && vsock_port("vsock:99") == 0 &&
            vsock_port("vsock:4294967295") == 0,
        "vsock: ports that are none");
}

void agent_vsock(void) {
  ports();
  pid_t agent = start(anyone);
  int first = dial();
  say_hello(first, FIRST_TOKEN);
  check(hears(first, "\"protocol\":1"), "vsock: a first connection attaches");
  int second = dial();
  check(is_closed(first), "vsock: the next connection takes the channel over");
  uint8_t half[FRAME_HEADER_BYTES];
  frame_header(half, FRAME_STDIN, 7, 500);
  check(write(second, half, sizeof half) == (ssize_t)sizeof half, "vsock: half a frame");
  close(second);
  int third = dial();
  say_hello(third, "tokentokentokenT");
  check(hears(third, "\"protocol\":1"), "vsock: a later one attaches with the next token");
  close(third);
  close(first);
  stop(agent);
  agent = start(nobody);
  int stranger = dial();
  check(is_closed(stranger), "vsock: who is not the host is turned away");
  close(stranger);
  stop(agent);
}
