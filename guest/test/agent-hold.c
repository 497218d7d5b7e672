#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent-tests.h"
#include "client.h"
#include "tap.h"

#define HOLD "{\"op\":\"hold\",\"max_ms\":20000}"
#define THAW "{\"op\":\"thaw\"}"
#define ENTROPY "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY="
#define IDENTITY                                                                                \
  "{\"op\":\"identity\",\"generation\":3,\"entropy_b64\":\"" ENTROPY "\","                      \
  "\"wall_clock_ns\":\"1700000000000000000\",\"hostname\":\"child-3\","                         \
  "\"machine_id\":\"0123456789abcdef0123456789abcdef\"}"

static void in_root(const char *name, char path[256]) {
  snprintf(path, 256, "%s/%s", agent_root(), name);
}

static long size_of(const char *name) {
  char path[256];
  struct stat st;
  in_root(name, path);
  return stat(path, &st) == 0 ? (long)st.st_size : -1;
}

static void pause_ms(long ms) {
  struct timespec t = {ms / 1000, ms % 1000 * 1000000};
  nanosleep(&t, NULL);
}

/* Whether a file grows; a writer that runs adds a byte each 10 ms. */
static bool grows(const char *name) {
  long before = size_of(name);
  for (int i = 0; i < 100 && size_of(name) <= before; i++) pause_ms(20);
  return size_of(name) > before;
}

static bool stands_still(const char *name) {
  long before = size_of(name);
  pause_ms(200);
  return size_of(name) == before;
}

/* A command whose child writes for as long as it runs. */
static void start_writer(void) {
  char request[512];
  snprintf(request, sizeof request,
           "{\"op\":\"exec\",\"argv\":[\"sh\",\"-c\",\"(while :; do printf x >> %s/ticks; sleep "
           "0.01; done) & wait\"],\"timeout_ms\":600000}",
           agent_root());
  client_request(request);
  check(grows("ticks"), "hold: the writer writes");
}

static void write_hook(const char *script) {
  char path[256];
  in_root("etc/forkd/fork.d/10-hook", path);
  FILE *f = fopen(path, "w");
  if (!f) return;
  fputs(script, f);
  fclose(f);
  chmod(path, 0755);
}

/* In the guest that goes on. */
static void held_parent(void) {
  client_call(HOLD);
  client_has("{}", "hold: answered");
  check(stands_still("ticks"), "hold: commands stand still");
  /* Neither is lost, and both run after the thaw only. */
  uint32_t exec = client_request(
      "{\"op\":\"exec\",\"argv\":[\"cat\"],\"stdin\":true,\"timeout_ms\":9000}");
  client_send(5, exec, "later\n", 6);
  client_send(5, exec, "", 0);
  check(client_collect(150)->type == 0, "hold: nothing is answered meanwhile");
  uint32_t thaw = client_request(THAW);
  client_wait(thaw, true);
  unsigned left = 0;
  bool ok = sscanf(strstr(client_last()->text, "{") ?: "", "{\"hold_left_ms\":%u}", &left) == 1;
  check(ok && left > 1000 && left <= 20000, "hold: the thaw says what was left of it");
  client_wait(exec, true);
  check(client_last()->out.len == 6, "hold: input that came meanwhile is not lost");
  client_has("\"exit_code\":0", "hold: a command that came meanwhile runs after it");
  check(grows("ticks"), "hold: commands go on after the thaw");
  client_call(THAW);
  client_has("{\"hold_left_ms\":0}", "hold: a second thaw finds none");
}

static void refused(void) {
  client_call("{\"op\":\"hold\",\"max_ms\":10}");
  client_has("bad_request", "hold: a bound that is too short");
  uint32_t first = client_request(HOLD);
  uint32_t second = client_request(HOLD);
  uint32_t thaw = client_request(THAW);
  client_wait(second, true);
  client_has("\"code\":\"busy\"", "hold: one at a time");
  client_wait(thaw, true);
  check(client_last()->type == 2 && first < second, "hold: thawed while it was still stopping");
  check(grows("ticks"), "hold: commands go on");
}

static void expires(void) {
  client_call("{\"op\":\"hold\",\"max_ms\":1000}");
  check(stands_still("ticks"), "hold: commands stand still again");
  check(grows("ticks"), "hold: it ends by itself");
  client_call("{\"op\":\"exec\",\"argv\":[\"true\"],\"timeout_ms\":9000}");
  client_has("\"exit_code\":0", "hold: the gate is open after it");
}

/* In a guest that was forked: whoever attaches does not end the hold, only the identity does. */
static void held_fork(void) {
  char script[700];
  char path[256];
  in_root("ticks", path);
  snprintf(script, sizeof script, "#!/bin/sh\na=$(wc -c < %s); sleep 0.2; b=$(wc -c < %s)\n"
           "[ $a = $b ] && echo held\n", path, path);
  write_hook(script);
  client_call("{\"op\":\"hold\",\"max_ms\":1000}");
  client_request("{\"op\":\"exec\",\"argv\":[\"touch\",\"/nowhere/x\"],\"timeout_ms\":9000}");
  check(client_attach(), "hold: attach to a held guest");
  client_has("\"gate\":\"closed\",\"held\":true", "hold: hello says so");
  client_call("{\"op\":\"exec\",\"argv\":[\"true\"],\"timeout_ms\":9000}");
  client_has("gate_closed", "hold: no exec before the identity");
  client_call("{\"op\":\"ping\"}");
  client_has("\"pong\":true", "hold: ping");
  pause_ms(1100);
  check(stands_still("ticks"), "hold: it does not end by itself after an attach");
  client_call(IDENTITY);
  client_has("\"reseeded\":[\"random\"", "hold: the runtime is reseeded");
  client_has("\"reseed_pending\":false", "hold: at once");
  client_has("\"detail\":\"held\\n\"", "hold: hooks run before commands do");
  check(grows("ticks"), "hold: the identity ends it");
  client_eval("1 + 1", 9000);
  client_has("\"result\":\"2\"", "hold: the runtime goes on");
}

/* A process that a guest put into a cgroup of its own, and one that it froze itself. */
static void own_groups(const char *dir) {
  char path[400];
  char request[900];
  snprintf(path, sizeof path, "%s/mine", dir);
  mkdir(path, 0755);
  snprintf(request, sizeof request,
           "{\"op\":\"exec\",\"argv\":[\"sh\",\"-c\",\"echo 0 > %s/cgroup.procs; while :; do printf x "
           ">> %s/mine; sleep 0.01; done\"],\"timeout_ms\":600000}",
           path, agent_root());
  client_request(request);
  check(grows("mine"), "hold: a process in its own cgroup runs");
  client_call(HOLD);
  check(stands_still("mine"), "hold: it stands still too");
  client_call(THAW);
  check(grows("mine"), "hold: and goes on");
  snprintf(request, sizeof request,
           "{\"op\":\"exec\",\"argv\":[\"sh\",\"-c\",\"echo 1 > %s/cgroup.freeze\"],"
           "\"timeout_ms\":9000}", path);
  client_call(request);
  client_call(HOLD);
  client_call(THAW);
  check(stands_still("mine"), "hold: what the guest froze itself stays frozen");
  snprintf(request, sizeof request,
           "{\"op\":\"exec\",\"argv\":[\"sh\",\"-c\",\"echo 0 > %s/cgroup.freeze\"],"
           "\"timeout_ms\":9000}", path);
  client_call(request);
}

static void without_cells(void) {
  agent_start(0);
  client_attach();
  client_call(HOLD);
  client_has("\"code\":\"hold_failed\"", "hold: refused without cgroups");
  client_call("{\"op\":\"exec\",\"argv\":[\"true\"],\"timeout_ms\":9000}");
  client_has("\"exit_code\":0", "hold: and nothing is held then");
  check(agent_stop(), "the agent ends well");
}

void agent_hold(void) {
  char dir[256];
  without_cells();
  if (!cgroup_make(dir)) {
    skip("hold: a guest whose processes stand still", "no cgroup v2 that this user may change");
    return;
  }
  agent_cgroup(dir);
  agent_start(0);
  check(client_attach(), "hold: attach");
  client_has("\"held\":false", "hold: none at first");
  client_call("{\"op\":\"warm\",\"runtime\":\"python\",\"imports\":[\"random\"],\"timeout_ms\":20000}");
  start_writer();
  held_parent();
  refused();
  expires();
  held_fork();
  own_groups(dir);
  check(agent_stop(), "the agent ends well");
  agent_cgroup(NULL);
  check(cgroup_remove(dir), "hold: nothing is left in the cgroups");
}
