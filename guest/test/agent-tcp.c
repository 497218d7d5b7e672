#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent-tests.h"
#include "client.h"
#include "tap.h"

/* Nobody else's: bound by a socket of ours too, which does not listen. */
static struct sockaddr_in door = {.sin_family = AF_INET};

static int reserve_port(void) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  socklen_t len = sizeof door;
  int on = 1;
  /* With it set on both, the agent can bind the same port and listen (socket(7)). */
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  door.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  bool ok = bind(fd, (struct sockaddr *)&door, sizeof door) == 0 &&
            getsockname(fd, (struct sockaddr *)&door, &len) == 0;
  check(ok, "tcp: a port is free");
  return fd;
}

static int dial(void) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  for (int i = 0; i < 100; i++) {
    if (connect(fd, (struct sockaddr *)&door, sizeof door) == 0) return fd;
    usleep(20000);
  }
  return fd;
}

/* Sends and reads to the end; `ms` bounds each wait. */
static const char *ask(const char *line, bool half_close, int ms) {
  static char reply[1 << 20];
  size_t used = 0;
  int fd = dial();
  if (write(fd, line, strlen(line)) < 0) note("not written");
  if (half_close) shutdown(fd, SHUT_WR);
  for (;;) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (poll(&p, 1, ms) <= 0) break;
    ssize_t n = read(fd, reply + used, sizeof reply - 1 - used);
    if (n <= 0) break;
    used += (size_t)n;
  }
  close(fd);
  reply[used] = 0;
  return reply;
}

static void expect(const char *line, const char *expected, const char *name) {
  const char *reply = ask(line, true, 15000);
  bool has = strstr(reply, expected) != NULL && reply[strlen(reply) - 1] == '\n';
  if (!check(has, "tcp: %s", name)) note("%.300s", reply);
}

void agent_tcp(void) {
  int reserved = reserve_port();
  agent_start(ntohs(door.sin_port));
  client_attach();
  client_call("{\"op\":\"warm\",\"runtime\":\"python\",\"timeout_ms\":20000}");
  expect("{\"action\":\"ping\"}\n", "{\"pong\":true,", "ping");
  check(strstr(ask("{\"action\":\"ping\"}\n", false, 15000), "pong") != NULL, "tcp: without half-close");
  expect("{\"action\":\"exec\",\"args\":[\"sh\",\"-c\",\"echo a; echo b >&2; exit 2\"]}\n",
         "{\"stdout\":\"a\\n\",\"stderr\":\"b\\n\",\"exit_code\":2,\"timed_out\":false}", "exec");
  expect("{\"action\":\"exec\",\"args\":[\"sleep\",\"9\"],\"timeout\":0.2}\n",
         "\"exit_code\":-9,\"timed_out\":true", "exec with a deadline");
  expect("{\"action\":\"exec\",\"args\":[\"no-such\"]}\n", "\"error\":\"cannot run no-such",
         "exec of nothing");
  expect("{\"action\":\"exec\",\"args\":[]}\n", "\"exit_code\":1", "exec without args");
  expect("{\"action\":\"eval\",\"code\":\"[1]*3\"}\n",
         "{\"result\":\"[1, 1, 1]\",\"exit_code\":0}", "eval");
  expect("{\"action\":\"eval\",\"code\":\"1/0\"}\n", "\"error\":\"ZeroDivisionError", "eval error");
  expect("{\"action\":\"fly\"}\n", "{\"error\":\"unknown action: fly\",\"exit_code\":1}", "unknown");
  expect("not json\n", "\"exit_code\":1", "not JSON");
  expect("{\"action\":\"exec\",\"args\":[\"printf\",\"\\\\377\"]}\n", "\xef\xbf\xbd",
         "output that is not UTF-8");
  int idle[70];
  for (int i = 0; i < 70; i++) idle[i] = dial();
  client_call("{\"op\":\"ping\"}");
  client_has("\"pong\":true", "tcp: idle connections do not block the channel");
  for (int i = 0; i < 70; i++) close(idle[i]);
  expect("{\"action\":\"ping\"}\n", "pong", "served again after a crowd");
  client_call("{\"op\":\"freeze\"}");
  check(*ask("{\"action\":\"ping\"}\n", true, 300) == 0, "tcp: shut while the gate is closed");
  client_attach();
  client_call("{\"op\":\"thaw\"}");
  expect("{\"action\":\"ping\"}\n", "pong", "open after a thaw");
  check(agent_stop(), "the agent ends well");
  close(reserved);
}
