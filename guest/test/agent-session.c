#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent-tests.h"
#include "client.h"
#include "files.h"
#include "tap.h"

#define ENTROPY "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY="
#define IDENTITY(generation, hostname)                                                          \
  "{\"op\":\"identity\",\"generation\":" #generation ",\"entropy_b64\":\"" ENTROPY "\","       \
  "\"wall_clock_ns\":\"1700000000000000000\",\"hostname\":\"" hostname "\","                   \
  "\"machine_id\":\"0123456789abcdef0123456789abcdef\"}"
#define TRUE_EXEC "{\"op\":\"exec\",\"argv\":[\"true\"],\"timeout_ms\":9000}"

static bool file_is(const char *name, const char *text) {
  char path[256];
  char seen[256] = "";
  snprintf(path, sizeof path, "%s/%s", agent_root(), name);
  FILE *f = fopen(path, "r");
  if (!f) return false;
  size_t n = fread(seen, 1, sizeof seen - 1, f);
  fclose(f);
  seen[n] = 0;
  return strcmp(seen, text) == 0;
}

static void hook(const char *name, const char *script) {
  char path[256];
  snprintf(path, sizeof path, "%s/etc/forkd/fork.d/%s", agent_root(), name);
  FILE *f = fopen(path, "w");
  if (!f) return;
  fputs(script, f);
  fclose(f);
  chmod(path, 0755);
}

static void requests(void) {
  client_call("{\"op\":\"dance\"}");
  client_has("unknown_op", "session: unknown op");
  client_call("{\"op\":1}");
  client_has("bad_request", "session: an op that is no text");
  client_call("{\"op\":");
  client_has("bad_request", "session: not JSON");
  client_call("{\"op\":\"ping\",\"more\":[1,{\"a\":null}]}");
  client_has("\"pong\":true,\"numpy_version\":\"not-installed\"", "session: ping, unknown fields");
}

static void sessions(void) {
  uint32_t s = client_request(
      "{\"op\":\"exec\",\"argv\":[\"sh\",\"-c\",\"sleep 0.3; echo done > $F\"],\"timeout_ms\":9000}");
  (void)s;
  check(client_attach(), "session: attach again");
  client_has("\"protocol\":1", "session: hello");
  uint8_t header[FRAME_HEADER_BYTES];
  frame_header(header, FRAME_STDIN, 5, 500);
  client_raw(header, sizeof header);
  client_raw("half a frame", 12);
  check(client_attach(), "session: attach in the middle of a frame");
  frame_header(header, FRAME_STDIN, 5, FRAME_PAYLOAD_BYTES_MAX + 1);
  client_raw(header, sizeof header);
  check(client_collect(100)->type == 0 && client_attach(), "session: attach after a broken frame");
  client_send(FRAME_STDOUT, 1, "x", 1);
  check(client_attach(), "session: attach after a frame of the wrong way");
  client_send(FRAME_STDIN, 99, "x", 1);
  client_call("{\"op\":\"ping\"}");
  client_has("\"pong\":true", "session: input for a closed stream is ignored");
}

static void survivor(void) {
  char request[300];
  snprintf(request, sizeof request,
           "{\"op\":\"exec\",\"argv\":[\"sh\",\"-c\",\"sleep 0.2; echo x; echo y > %s/survived\"],"
           "\"timeout_ms\":9000}",
           agent_root());
  client_request(request);
  client_attach();
  client_collect(600);
  check(file_is("survived", "y\n"), "session: commands outlive their session");
}

static void frozen(void) {
  uint32_t s = client_request(
      "{\"op\":\"exec\",\"argv\":[\"sh\",\"-c\",\"sleep 0.2; echo late\"],\"timeout_ms\":9000}");
  client_call("{\"op\":\"freeze\"}");
  client_has("{}", "gate: freeze");
  check(client_collect(500)->out.len == 0, "gate: nothing is written after a freeze");
  client_request("{\"op\":\"thaw\"}");
  check(client_wait(s, true)->out.len == 5, "gate: output comes after a thaw");
  client_call(TRUE_EXEC);
  client_has("\"exit_code\":0", "gate: open after a thaw");
  /* The hooks of an identity are those that were there at the freeze before it. */
  hook("10-good", "#!/bin/sh\necho \"$FORKD_GENERATION\"\n");
  hook("20-bad", "#!/bin/sh\necho why >&2\nexit 4\n");
  hook("30-slow", "#!/bin/sh\nsleep 60\n");
  hook(".hidden", "#!/bin/sh\nexit 1\n");
  client_call("{\"op\":\"freeze\"}");
  check(client_attach(), "gate: attach to a frozen guest");
  client_has("\"gate\":\"closed\"", "gate: hello says closed");
  client_call(TRUE_EXEC);
  client_has("gate_closed", "gate: no exec");
  client_eval("1", 1000);
  client_has("gate_closed", "gate: no eval");
  client_call("{\"op\":\"ping\"}");
  client_has("\"pong\":true", "gate: ping");
}

static void identity(void) {
  client_call(IDENTITY(9, "bad_name"));
  client_has("bad_request", "identity: bad host name");
  client_call("{\"op\":\"identity\",\"generation\":1}");
  client_has("bad_request", "identity: missing members");
  client_call(TRUE_EXEC);
  client_has("gate_closed", "identity: the gate stays closed");
  client_call(IDENTITY(9, "child-9"));
  client_has("\"generation\":9,\"entropy_bytes\":32,\"crng_reseeded\":false,\"simulated\":true",
             "identity: done");
  client_has("{\"name\":\"10-good\",\"ok\":true,\"detail\":\"9\\n\"}", "identity: a good hook");
  client_has("{\"name\":\"20-bad\",\"ok\":false,\"detail\":\"exit code 4: why\\n\"}",
             "identity: a bad hook");
  client_has("{\"name\":\"30-slow\",\"ok\":false,\"detail\":\"killed after 2000 ms: \"}]",
             "identity: a slow hook");
  check(file_is("etc/hostname", "child-9\n"), "identity: /etc/hostname");
  check(file_is("etc/machine-id", "0123456789abcdef0123456789abcdef\n"), "identity: machine-id");
  check(file_is("run/forkd/generation", "9\n"), "identity: generation");
  client_call(TRUE_EXEC);
  client_has("\"exit_code\":0", "identity: the gate is open");
}

static void before_hello(void) {
  client_raw(FIRST_TOKEN, TOKEN_BYTES);
  client_send(FRAME_REQUEST, 3, "{\"op\":\"ping\"}", 13);
  check(client_wait(3, false)->type == FRAME_ERROR, "session: hello must come first");
}

void agent_session(void) {
  agent_start(0);
  before_hello();
  check(client_attach(), "session: attach");
  client_has("\"generation\":0,\"gate\":\"open\",\"held\":false,\"warm\":\"none\",\"runtime\":\"none\"",
             "session: a fresh guest");
  requests();
  sessions();
  survivor();
  frozen();
  identity();
  check(agent_stop(), "the agent ends well");
}
