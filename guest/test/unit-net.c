#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "net.h"
#include "tap.h"
#include "unit.h"

#define GOOD                                                                                      \
  "{\"mac\":\"02:00:00:00:00:07\",\"addresses\":[{\"address\":\"10.42.0.2\",\"prefix\":24},"      \
  "{\"address\":\"10.42.1.7\",\"prefix\":32},{\"address\":\"fd42::107\",\"prefix\":64}],"         \
  "\"routes\":[{\"gateway\":\"10.42.0.1\",\"source\":\"10.42.1.7\"},"                             \
  "{\"gateway\":\"fd42::1\",\"source\":\"fd42::107\"}]}"

static const char *parse(const char *text, struct net_plan *plan) {
  struct json_doc doc;
  if (json_parse(&doc, text, strlen(text)) < 0) return "no JSON";
  const char *wrong = net_parse(doc.root, plan);
  json_free(&doc);
  return wrong;
}

static void parsing(void) {
  static const char *const bad[] = {
      "null",
      "{}",
      "{\"mac\":\"02:00:00:00:00:07\"}",
      "{\"mac\":\"03:00:00:00:00:07\",\"addresses\":[],\"routes\":[]}",
      "{\"mac\":\"00:00:00:00:00:07\",\"addresses\":[],\"routes\":[]}",
      "{\"mac\":\"02:00:00:00:00:0\",\"addresses\":[],\"routes\":[]}",
      "{\"mac\":\"02:00:00:00:00:077\",\"addresses\":[],\"routes\":[]}",
      "{\"mac\":\"02:00:00:00:00::7\",\"addresses\":[],\"routes\":[]}",
      "{\"mac\":\"02:00:00:00:00:07\",\"addresses\":[{\"address\":\"10.42.0\",\"prefix\":1}],"
      "\"routes\":[]}",
      "{\"mac\":\"02:00:00:00:00:07\",\"addresses\":[{\"address\":\"10.42.0.2\",\"prefix\":33}],"
      "\"routes\":[]}",
      "{\"mac\":\"02:00:00:00:00:07\",\"addresses\":[0,0,0,0,0,0,0,0,0],\"routes\":[]}",
      "{\"mac\":\"02:00:00:00:00:07\",\"addresses\":[],"
      "\"routes\":[{\"gateway\":\"10.42.0.1\",\"source\":\"fd42::1\"}]}",
      "{\"mac\":\"02:00:00:00:00:07\",\"addresses\":[],\"routes\":[],\"dns\":\"localhost\"}",
  };
  struct net_plan plan;
  check(parse(GOOD, &plan) == NULL, "net: a whole plan");
  check(plan.mac[0] == 2 && plan.mac[5] == 7, "net: its MAC");
  check(plan.address_count == 3 && plan.route_count == 2, "net: its lists");
  check(plan.addresses[1].prefix == 32 && plan.addresses[2].bytes[15] == 7, "net: its addresses");
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    check(parse(bad[i], &plan) != NULL, "net: refuses case %zu", i);
  }
}

static bool has(const char *command, const char *words) {
  static char text[8192];
  FILE *pipe = popen(command, "r");
  size_t n = pipe ? fread(text, 1, sizeof text - 1, pipe) : 0;
  text[n] = 0;
  if (pipe) pclose(pipe);
  return strstr(text, words) != NULL;
}

/* In a network namespace of its own, whose card is one end of a pair. */
static int in_namespace(void) {
  struct net_plan plan;
  char mac[18];
  const char *addresses = "ip -o address show dev eth0";
  int failed = parse(GOOD, &plan) != NULL;
  failed |= (net_apply(&plan) != NULL) << 1;
  failed |= !(net_read_mac(mac) && strcmp(mac, "02:00:00:00:00:07") == 0) << 2;
  failed |= !(has(addresses, "10.42.0.2/24") && has(addresses, "10.42.1.7/32")) << 3;
  failed |= !has(addresses, "fd42::107/64") << 4;
  failed |= !has("ip route", "default via 10.42.0.1 dev eth0 src 10.42.1.7") << 5;
  failed |= !has("ip -6 route", "default via fd42::1 dev eth0 src fd42::107") << 6;
  /* What it had is gone when it becomes another one, and when it has no network any more. */
  plan.mac[5] = 8;
  plan.address_count = 1;
  plan.route_count = 0;
  failed |= (net_apply(&plan) != NULL || has(addresses, "10.42.1.7")) << 7;
  failed |= (net_apply(NULL) != NULL || has(addresses, "10.42")) << 8;
  failed |= has("ip link show up", "eth0") << 9;
  return failed ? 100 + __builtin_ctz((unsigned)failed) : 0;
}

static void applying(void) {
  fflush(stdout);
  pid_t pid = fork();
  if (pid == 0) {
    const char *card = "ip link add eth0 type veth peer name peer0";
    if (unshare(CLONE_NEWNET) < 0 || system(card) != 0) _exit(1);
    _exit(in_namespace());
  }
  int status = 0;
  bool ended = pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status);
  if (ended && WEXITSTATUS(status) == 1) {
    check(true, "net: a card is set up # SKIP needs root and veth devices");
    return;
  }
  check(ended && WEXITSTATUS(status) == 0, "net: a card is set up");
}

void unit_net(void) {
  parsing();
  applying();
}
