#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent-tests.h"
#include "client.h"
#include "tap.h"

static bool out_is(const struct outcome *o, const char *text) {
  return o->out.len == strlen(text) && memcmp(buf_head(&o->out), text, o->out.len) == 0;
}

static void basics(void) {
  struct outcome *o = client_call(
      "{\"op\":\"exec\",\"argv\":[\"sh\",\"-c\",\"echo out; echo err >&2; exit 3\"],"
      "\"stdin\":false,\"timeout_ms\":10000}");
  client_has("\"exit_code\":3,\"signal\":null,\"timed_out\":false", "exec: exit code");
  check(out_is(o, "out\n") && o->err.len == 4, "exec: both outputs");
  check(o->events.len && strstr(buf_text(&o->events), "\"event\":\"started\",\"pid\":"),
        "exec: started");
  client_call("{\"op\":\"exec\",\"argv\":[\"sh\",\"-c\",\"kill -TERM $$\"],\"timeout_ms\":10000}");
  client_has("\"exit_code\":null,\"signal\":\"SIGTERM\"", "exec: signal");
  o = client_call("{\"op\":\"exec\",\"argv\":[\"sh\",\"-c\",\"pwd; echo $A-$HOME\"],"
                  "\"cwd\":\"/usr\",\"env\":{\"A\":\"b\"},\"timeout_ms\":10000}");
  check(out_is(o, "/usr\nb-/root\n"), "exec: directory and environment");
  o = client_call("{\"op\":\"exec\",\"argv\":[\"sh\",\"-c\",\"ls /proc/self/fd | wc -l; "
                  "grep -c 'SigIgn:.0000000000000000' /proc/self/status; ps -o sid= -p $$ "
                  "| tr -d ' ' | grep -qx $$ && echo leader\"],\"timeout_ms\":10000}");
  if (!check(out_is(o, "4\n1\nleader\n"), "exec: own session, no foreign descriptors or signals")) {
    note("%s", buf_text(&o->out));
  }
}

static void mistakes(void) {
  static const struct {
    const char *json;
    const char *code;
  } cases[] = {
      {"{\"op\":\"exec\",\"argv\":[\"no-such-program\"],\"timeout_ms\":1000}", "not_found"},
      {"{\"op\":\"exec\",\"argv\":[\"/etc\"],\"timeout_ms\":1000}", "spawn_failed"},
      {"{\"op\":\"exec\",\"argv\":[\"ls\"],\"cwd\":\"/none\",\"timeout_ms\":1000}", "bad_cwd"},
      {"{\"op\":\"exec\",\"argv\":[\"ls\"],\"user\":\"none\",\"timeout_ms\":1000}", "bad_user"},
      {"{\"op\":\"exec\",\"argv\":[],\"timeout_ms\":1000}", "bad_request"},
      {"{\"op\":\"exec\",\"argv\":[\"\"],\"timeout_ms\":1000}", "bad_request"},
      {"{\"op\":\"exec\",\"argv\":\"ls\",\"timeout_ms\":1000}", "bad_request"},
      {"{\"op\":\"exec\",\"argv\":[\"a\\u0000b\"],\"timeout_ms\":1000}", "bad_request"},
      {"{\"op\":\"exec\",\"argv\":[\"ls\"],\"timeout_ms\":0}", "bad_request"},
      {"{\"op\":\"exec\",\"argv\":[\"ls\"]}", "bad_request"},
      {"{\"op\":\"exec\",\"argv\":[\"ls\"],\"env\":{\"A\":1},\"timeout_ms\":1}", "bad_request"},
      {"{\"op\":\"exec\",\"argv\":[\"ls\"],\"env\":{\"A=\":\"\"},\"timeout_ms\":1}", "bad_request"},
      {"{\"op\":\"exec\",\"argv\":[\"ls\"],\"tty\":true,\"timeout_ms\":1000}", "bad_request"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct outcome *o = client_call(cases[i].json);
    char code[64];
    snprintf(code, sizeof code, "\"code\":\"%s\"", cases[i].code);
    check(o->type == FRAME_ERROR && strstr(o->text, code), "exec: %s (%zu)", cases[i].code, i);
  }
}

static void deadline(void) {
  struct outcome *o = client_call(
      "{\"op\":\"exec\",\"argv\":[\"sh\",\"-c\",\"sleep 60 & echo $!; wait\"],"
      "\"timeout_ms\":200}");
  client_has("\"signal\":\"SIGKILL\",\"timed_out\":true", "exec: deadline");
  char path[64];
  snprintf(path, sizeof path, "/proc/%.20s", buf_text(&o->out));
  path[strcspn(path, "\n")] = 0;
  /* The grandchild is killed with the group; who reaps it on this host takes a moment. */
  bool gone = false;
  for (int i = 0; i < 50 && !gone; i++) {
    char state[80];
    snprintf(state, sizeof state, "%s/stat", path);
    FILE *f = fopen(state, "r");
    char text[256] = "";
    gone = !f || !fgets(text, sizeof text, f) || strstr(text, ") Z");
    if (f) fclose(f);
    if (!gone) usleep(20000);
  }
  check(gone, "exec: the deadline kills the whole group");
  o = client_call("{\"op\":\"exec\",\"argv\":[\"sh\",\"-c\",\"sleep 3 & echo parent\"],"
                  "\"timeout_ms\":10000}");
  check(out_is(o, "parent\n") && strstr(o->text, "\"exit_code\":0"),
        "exec: a background child does not hold the reply");
}

static void input(void) {
  uint32_t s = client_request(
      "{\"op\":\"exec\",\"argv\":[\"cat\"],\"stdin\":true,\"timeout_ms\":10000}");
  client_send(FRAME_STDIN, s, "one\n", 4);
  client_send(FRAME_STDIN, s, "two\n", 4);
  client_send(FRAME_STDIN, s, "", 0);
  check(out_is(client_wait(s, true), "one\ntwo\n"), "exec: input and its end");
  s = client_request("{\"op\":\"exec\",\"argv\":[\"true\"],\"stdin\":true,\"timeout_ms\":9000}");
  static char zeros[60000];
  for (int i = 0; i < 4; i++) client_send(FRAME_STDIN, s, zeros, sizeof zeros);
  client_wait(s, true);
  client_has("\"exit_code\":0", "exec: input that nobody reads");
  s = client_request("{\"op\":\"exec\",\"argv\":[\"sleep\",\"60\"],\"timeout_ms\":60000}");
  uint8_t word[4] = {10, 0, 0, 0};
  client_send(FRAME_SIGNAL, s, word, 4);
  client_wait(s, true);
  client_has("\"signal\":\"SIGUSR1\"", "exec: a signal from the host");
}

static void backpressure(void) {
  static const char big[] = "{\"op\":\"exec\",\"argv\":[\"head\",\"-c\",\"3000000\",\"/dev/zero\"],"
                            "\"timeout_ms\":20000}";
  check(client_call(big)->out.len == 3000000, "exec: all of a large output with credit");
  uint32_t s = client_request(big);
  struct outcome *o = client_collect(400);
  check(o->out.len == STREAM_CREDIT_BYTES && o->type == 0, "exec: stops where the credit ends");
  client_call("{\"op\":\"ping\"}");
  client_has("\"pong\":true", "exec: others are served meanwhile");
  uint8_t word[4];
  put_le32(word, 3000000);
  client_send(FRAME_WINDOW, s, word, 4);
  check(client_wait(s, false)->out.len == 3000000 - STREAM_CREDIT_BYTES,
        "exec: goes on with new credit");
}

static void crowd(void) {
  uint32_t first = 0;
  for (int i = 0; i < STREAMS_MAX; i++) {
    uint32_t s = client_request("{\"op\":\"exec\",\"argv\":[\"sleep\",\"60\"],\"timeout_ms\":60000}");
    if (i == 0) first = s;
  }
  client_call("{\"op\":\"exec\",\"argv\":[\"true\"],\"timeout_ms\":1000}");
  client_has("too_many_streams", "exec: one stream too many");
  uint8_t word[4] = {9, 0, 0, 0};
  for (uint32_t s = first; s < first + STREAMS_MAX; s++) client_send(FRAME_SIGNAL, s, word, 4);
  client_wait(first + STREAMS_MAX - 1, false);
  client_collect(300);
  client_call("{\"op\":\"exec\",\"argv\":[\"true\"],\"timeout_ms\":9000}");
  client_has("\"exit_code\":0", "exec: room again after they end");
}

static void as_user(void) {
  if (geteuid() != 0) {
    skip("exec: another user", "needs root");
    return;
  }
  struct outcome *o = client_call("{\"op\":\"exec\",\"argv\":[\"sh\",\"-c\",\"id -u; id -g; id -G\"],"
                                  "\"user\":\"4321:1234\",\"timeout_ms\":10000}");
  check(out_is(o, "4321\n1234\n1234\n"), "exec: another user, no groups of root");
}

void agent_exec(void) {
  agent_start(0);
  check(client_attach(), "attach");
  basics();
  mistakes();
  deadline();
  input();
  backpressure();
  crowd();
  as_user();
  check(agent_stop(), "the agent ends well");
}
