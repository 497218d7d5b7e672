#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent-tests.h"
#include "client.h"
#include "tap.h"

#define TIME "\"timeout_ms\":20000"
#define START "{\"op\":\"exec_start\",\"id\":\"%s\",\"argv\":[\"sh\",\"-c\",\"%s\"]," TIME "%s}"

static uint32_t start(const char *id, const char *script, const char *more) {
  static char json[4096];
  snprintf(json, sizeof json, START, id, script, more);
  return client_request(json);
}

static uint32_t attach(const char *id, unsigned from) {
  char json[256];
  snprintf(json, sizeof json, "{\"op\":\"exec_attach\",\"id\":\"%s\",\"from\":%u}", id, from);
  return client_request(json);
}

/* A call about an exec; `more` begins with a comma. */
static struct outcome *about(const char *op, const char *id, const char *more) {
  char json[256];
  snprintf(json, sizeof json, "{\"op\":\"%s\",\"id\":\"%s\"%s}", op, id, more);
  return client_call(json);
}

static bool out_is(const struct outcome *o, const char *text) {
  bool is = o->out.len == strlen(text) && memcmp(buf_head(&o->out), text, o->out.len) == 0;
  if (!is) note("%.*s", (int)o->out.len, (const char *)buf_head(&o->out));
  return is;
}

static bool event_has(struct outcome *o, const char *part) {
  return o->events.len && strstr(buf_text(&o->events), part);
}

static void whole_life(void) {
  uint32_t s = start("one", "echo out; echo err >&2; exit 3", "");
  struct outcome *o = client_wait(s, true);
  client_has("\"exit_code\":3,\"signal\":null,\"timed_out\":false", "execs: exit code");
  check(out_is(o, "out\n") && o->err.len == 4, "execs: both outputs");
  check(event_has(o, "\"event\":\"attached\"") && event_has(o, "\"from\":0,\"input_room\":262144"),
        "execs: says where its output begins");
  about("exec_list", "one", "");
  client_has("\"id\":\"one\",\"command\":\"sh\"", "execs: listed after its end");
  client_has("\"running\":false,\"exit_code\":3", "execs: listed with its end");
  o = client_wait(attach("one", 4), true);
  check(o->out.len == 0 && o->err.len == 4, "execs: shown again from an offset");
  client_has("\"exit_code\":3", "execs: its end is told again");
  client_wait(attach("one", 999), true);
  client_has("\"exit_code\":3", "execs: an offset past the end is the end");
  about("exec_forget", "one", "");
  about("exec_attach", "one", "");
  client_has("no_exec", "execs: forgotten");
}

static void terminal(void) {
  uint32_t s = start("tty", "tty; stty size; read -r a; stty size; echo $a-$TERM; exit 4",
                     ",\"tty\":{\"rows\":30,\"cols\":100}");
  struct outcome *o = client_collect(300);
  check(strstr(buf_text(&o->out), "/dev/pts/") && strstr(buf_text(&o->out), "30 100\r\n"),
        "tty: a terminal with a size");
  about("exec_resize", "tty", ",\"rows\":50,\"cols\":120");
  check(client_last()->type == FRAME_REPLY, "tty: resized");
  client_send(FRAME_STDIN, s, "in\n", 3);
  o = client_wait(s, true);
  check(out_is(o, "in\r\n50 120\r\nin-xterm\r\n"), "tty: input is echoed; the new size is seen");
  client_has("\"exit_code\":4", "tty: exit code");
  check(o->err.len == 0, "tty: one output");
  s = start("end", "cat; echo over", ",\"tty\":{\"rows\":30,\"cols\":100}");
  client_send(FRAME_STDIN, s, "", 0);
  check(out_is(client_wait(s, true), "over\r\n"), "tty: the end of input is typed");
  s = start("int", "trap 'echo caught; exit 5' INT; echo on; while :; do sleep 0.1; done",
            ",\"tty\":{\"rows\":30,\"cols\":100}");
  client_collect(300);
  client_send(FRAME_STDIN, s, "\x03", 1);
  check(strstr(buf_text(&client_wait(s, true)->out), "caught"), "tty: Ctrl-C reaches the foreground");
  s = start("job", "set -m; sleep 60; echo after $?", ",\"tty\":{\"rows\":30,\"cols\":100}");
  client_collect(300);
  about("exec_signal", "job", ",\"signal\":15");
  check(strstr(buf_text(&client_wait(s, true)->out), "after 143"),
        "tty: a signal goes to the foreground group");
  about("exec_resize", "one-more", ",\"rows\":0,\"cols\":1");
  client_has("bad_request", "tty: no size");
}

static void leave_and_return(void) {
  uint32_t s = start("long", "echo a; read -r x; echo $x; read -r y; echo $y", ",\"stdin\":true");
  client_collect(200);
  char more[64];
  snprintf(more, sizeof more, ",\"stream\":%u", s + 7);
  about("exec_detach", "long", more);
  client_send(FRAME_STDIN, s, "b\n", 2);
  check(out_is(client_collect(200), "b\n"), "execs: only the one that shows it can be left");
  snprintf(more, sizeof more, ",\"stream\":%u", s);
  char json[128];
  snprintf(json, sizeof json, "{\"op\":\"exec_detach\",\"id\":\"long\"%s}", more);
  client_request(json);
  client_wait(s, false);
  client_has("\"code\":\"detached\"", "execs: left");
  about("exec_list", "", "");
  client_has("\"attached\":false", "execs: listed as left");
  client_has("\"running\":true", "execs: goes on when left");
  uint32_t again = attach("long", 2);
  check(out_is(client_collect(200), "b\n"), "execs: replayed from where the caller was");
  uint32_t third = attach("long", 0);
  client_wait(again, false);
  client_has("\"code\":\"detached\"", "execs: another one takes it over");
  client_send(FRAME_STDIN, third, "c\n", 2);
  check(out_is(client_wait(third, true), "a\nb\nc\n"), "execs: replayed from the beginning");
  client_has("\"exit_code\":0", "execs: and followed to its end");
}

static void survives_the_session(void) {
  start("kept", "echo before; read -r x; echo $x", ",\"stdin\":true");
  client_collect(200);
  check(client_attach(), "execs: a new session");
  uint32_t s = attach("kept", 0);
  client_send(FRAME_STDIN, s, "late\n", 5);
  check(out_is(client_wait(s, true), "before\nlate\n"), "execs: found again in a new session");
}

static void slow_reader(void) {
  uint32_t s = start("slow", "head -c 3000000 /dev/zero", "");
  struct outcome *o = client_collect(400);
  check(o->out.len == STREAM_CREDIT_BYTES && o->type == 0, "execs: stops where the credit ends");
  client_call("{\"op\":\"ping\"}");
  client_has("\"pong\":true", "execs: others are served meanwhile");
  uint32_t other = attach("slow", 0);
  client_wait(s, false);
  client_has("detached", "execs: a reader that is stuck is replaced");
  o = client_wait(other, true);
  check(o->out.len == 3000000, "execs: nothing is lost while somebody is attached");
  s = start("big", "sleep 0.3; head -c 3000000 /dev/zero; echo end", "");
  char json[96];
  snprintf(json, sizeof json, "{\"op\":\"exec_detach\",\"id\":\"big\",\"stream\":%u}", s);
  client_call(json);
  client_collect(1500);
  o = client_wait(attach("big", 0), true);
  check(o->out.len == EXEC_RING_BYTES && event_has(o, "\"from\":2737860"),
        "execs: who was away gets the end of it");
  check(memcmp(buf_head(&o->out) + o->out.len - 4, "end\n", 4) == 0, "execs: the very end");
}

static void unread_input(void) {
  static char zeros[65536];
  uint32_t s = start("full", "sleep 1; head -c 200000 | wc -c; wc -c", ",\"stdin\":true");
  for (int i = 0; i < 4; i++) client_send(FRAME_STDIN, s, zeros, sizeof zeros);
  client_collect(200);
  uint32_t again = attach("full", 0);
  struct outcome *o = client_collect(200);
  check(event_has(o, "\"input_room\":65536"), "execs: unread input counts for who comes next");
  client_send(FRAME_STDIN, again, zeros, 1000);
  client_send(FRAME_STDIN, again, "", 0);
  check(out_is(client_wait(again, true), "200000\n63144\n"), "execs: and is not lost");
}

static void mistakes(void) {
  static const struct {
    const char *json;
    const char *code;
  } cases[] = {
      {"{\"op\":\"exec_start\",\"argv\":[\"ls\"]," TIME "}", "bad_request"},
      {"{\"op\":\"exec_start\",\"id\":\"a/b\",\"argv\":[\"ls\"]," TIME "}", "bad_request"},
      {"{\"op\":\"exec_start\",\"id\":\"a\",\"argv\":[\"ls\"]}", "bad_request"},
      {"{\"op\":\"exec_start\",\"id\":\"a\",\"argv\":[\"no-such-program\"]," TIME "}", "not_found"},
      {"{\"op\":\"exec_start\",\"id\":\"a\",\"argv\":[\"ls\"],\"tty\":true," TIME "}", "bad_request"},
      {"{\"op\":\"exec_start\",\"id\":\"long\",\"argv\":[\"ls\"]," TIME "}", "bad_request"},
      {"{\"op\":\"exec_attach\",\"id\":\"none\"}", "no_exec"},
      {"{\"op\":\"exec_attach\",\"id\":\"long\",\"from\":-1}", "bad_request"},
      {"{\"op\":\"exec_signal\",\"id\":\"long\",\"signal\":65}", "bad_request"},
      {"{\"op\":\"exec_signal\",\"id\":\"none\",\"signal\":9}", "no_exec"},
      {"{\"op\":\"exec_resize\",\"id\":\"long\",\"rows\":1,\"cols\":1}", "bad_request"},
      {"{\"op\":\"exec_detach\",\"id\":\"long\"}", "bad_request"},
      {"{\"op\":\"exec_forget\",\"id\":\"none\"}", "no_exec"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct outcome *o = client_call(cases[i].json);
    char code[64];
    snprintf(code, sizeof code, "\"code\":\"%s\"", cases[i].code);
    check(o->type == FRAME_ERROR && strstr(o->text, code), "execs: %s (%zu)", cases[i].code, i);
  }
}

static void forgets(void) {
  uint32_t s = start("doomed", "sleep 60", "");
  client_collect(100);
  client_request("{\"op\":\"exec_forget\",\"id\":\"doomed\"}");
  client_wait(s, true);
  client_has("\"signal\":\"SIGKILL\"", "execs: killed, and its reader is told");
  for (int i = 0; i < EXECS_ENDED_MAX + 4; i++) {
    char id[16];
    snprintf(id, sizeof id, "n%d", i);
    client_wait(start(id, "true", ""), true);
  }
  client_call("{\"op\":\"exec_list\"}");
  client_has("\"id\":\"n19\"", "execs: the latest are remembered");
  check(!strstr(client_last()->text, "\"id\":\"n3\"") && !strstr(client_last()->text, "doomed"),
        "execs: the oldest are not");
}

void agent_execs(void) {
  agent_start(0);
  check(client_attach(), "attach");
  whole_life();
  terminal();
  leave_and_return();
  mistakes();
  survives_the_session();
  slow_reader();
  unread_input();
  forgets();
  check(agent_stop(), "the agent ends well");
}
