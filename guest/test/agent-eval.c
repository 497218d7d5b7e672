#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent-tests.h"
#include "client.h"
#include "tap.h"

static void common(const char *what, const char *loop) {
  char name[100];
  client_eval(loop, 300);
  snprintf(name, sizeof name, "%s: a loop is interrupted", what);
  client_has("\"ok\":false", name);
  snprintf(name, sizeof name, "%s: and said to have timed out", what);
  client_has("\"timed_out\":true", name);
}

static bool warm(const char *runtime, const char *imports) {
  char request[256];
  snprintf(request, sizeof request,
           "{\"op\":\"warm\",\"runtime\":\"%s\",\"imports\":[%s],\"env\":{\"WARM\":\"1\"},"
           "\"timeout_ms\":20000}",
           runtime, imports);
  return client_call(request)->type == FRAME_REPLY;
}

static void large_code(void) {
  static char code[900001];
  memset(code, '\n', sizeof code - 1);
  memcpy(code + sizeof code - 4, "5+6", 3);
  client_eval(code, 10000);
  client_has("\"result\":\"11\"", "python: a large code");
  struct outcome *o = client_eval("'\\u00e9' * 70000", 10000);
  client_has("\"result\":null", "python: a large result is not in the reply");
  check(o->events.len > 140000 && strstr(buf_text(&o->events), "\"event\":\"result\""),
        "python: it comes in pieces");
  client_call("{\"op\":\"eval\",\"code_bytes\":1048577,\"timeout_ms\":1000}");
  client_has("bad_request", "eval: too much code");
  uint32_t s = client_request("{\"op\":\"eval\",\"code_bytes\":3,\"timeout_ms\":1000}");
  client_send(FRAME_STDIN, s, "12345", 5);
  client_wait(s, false);
  client_has("bad_request", "eval: more code than announced");
}

static void deaths(void) {
  client_eval("import os; os._exit(7)", 5000);
  client_has("runtime_died", "python: dies");
  client_eval("1+1", 10000);
  client_has("\"result\":\"2\"", "python: starts again");
  client_eval("x", 5000);
  client_has("NameError", "python: cold");
  client_eval("import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
              "while True: time.sleep(1)",
              200);
  client_has("\"timed_out\":true", "python: killed when it ignores the interrupt");
  client_eval("2+2", 10000);
  client_has("\"result\":\"4\"", "python: starts again after that");
}

static void crowd(void) {
  static const char sleeper[] = "import time; time.sleep(0.6); 'slept'";
  char request[100];
  snprintf(request, sizeof request, "{\"op\":\"eval\",\"code_bytes\":%zu,\"timeout_ms\":9000}",
           sizeof sleeper - 1);
  uint32_t slow = client_request(request);
  client_send(FRAME_STDIN, slow, sleeper, sizeof sleeper - 1);
  client_eval("1", 50);
  client_has("\"timed_out\":true", "eval: waiting counts");
  client_wait(slow, true);
  client_has("'slept'", "eval: the running one is not disturbed");
}

static uint32_t begin(const char *code) {
  char request[100];
  snprintf(request, sizeof request, "{\"op\":\"eval\",\"code_bytes\":%zu,\"timeout_ms\":60000}",
           strlen(code));
  uint32_t stream = client_request(request);
  client_send(FRAME_STDIN, stream, code, (uint32_t)strlen(code));
  return stream;
}

static void cancel(void) {
  static const uint8_t kill_word[4] = {9};
  uint32_t running = begin("import time; time.sleep(60)");
  uint32_t waiting = begin("1");
  client_send(FRAME_SIGNAL, waiting, kill_word, sizeof kill_word);
  client_wait(waiting, true);
  client_has("while it waited", "eval: a signal ends one that waits");
  client_send(FRAME_SIGNAL, running, kill_word, sizeof kill_word);
  client_send(FRAME_SIGNAL, running, kill_word, sizeof kill_word);
  client_wait(running, true);
  client_has("\"timed_out\":true", "eval: a signal ends the running one");
  client_eval("3+3", 9000);
  client_has("\"result\":\"6\"", "eval: the interpreter goes on after that");
}

void agent_python(void) {
  agent_start(0);
  client_attach();
  client_eval("1", 1000);
  client_has("no_runtime", "eval: no runtime");
  check(warm("python", "\"json\",\"?no_such_module\""), "python: warm");
  if (!client_has("\"runtime\":\"python\",\"detail\":\"python 3.", "python: detail")) {
    agent_stop();
    return;
  }
  client_call("{\"op\":\"warm\",\"timeout_ms\":1}");
  client_has("bad_request", "warm: once");
  struct outcome *o = client_eval("import sys\nx = 41\nprint('hi')\n"
                                  "print('err', file=sys.stderr)\nx + 1", 10000);
  client_has("{\"ok\":true,\"result\":\"42\",\"result_json\":\"42\",\"error\":null", "python: value");
  check(strcmp(buf_text(&o->out), "hi\n") == 0 && strcmp(buf_text(&o->err), "err\n") == 0,
        "python: output");
  client_eval("x, json.dumps([1]), __import__('os').environ['WARM'], open", 10000);
  client_has("(41, '[1]', '1', ", "python: state, imports and environment");
  client_has("\"result_json\":null", "python: what JSON cannot hold");
  client_eval("def f():\n  raise ValueError('no')\nf()", 10000);
  client_has("\"error\":\"ValueError: no\",\"traceback\":\"Traceback (most recent call last):\\n"
             "  File \\\"<eval>\\\", line 3", "python: error");
  client_eval("import sys; sys.exit(3)", 10000);
  client_has("SystemExit: 3", "python: exit is an error");
  client_eval("", 1000);
  client_has("\"ok\":true,\"result\":\"None\"", "python: no code");
  o = client_eval("print('z' * 1000000)", 10000);
  check(o->out.len == 1000001, "python: large output with credit");
  client_eval("import os\nif os.fork() == 0:\n  pass\nelse:\n  os.wait()\n7", 10000);
  client_has("\"result\":\"7\"", "python: a fork answers once");
  common("python", "while True: pass");
  client_eval("x", 1000);
  client_has("\"result\":\"41\"", "python: state survives an interrupt");
  large_code();
  crowd();
  cancel();
  deaths();
  check(agent_stop(), "the agent ends well");
}

void agent_node(void) {
  if (access("/usr/bin/node", X_OK) != 0 && access("/usr/local/bin/node", X_OK) != 0) {
    skip("node", "no node in /usr/bin or /usr/local/bin");
    return;
  }
  agent_start(0);
  client_attach();
  check(warm("node", "\"node:path\""), "node: warm");
  client_has("\"runtime\":\"node\",\"detail\":\"node v", "node: detail");
  client_eval("const a = 5; let b = await Promise.resolve(6);", 10000);
  client_has("\"ok\":true", "node: await");
  struct outcome *o = client_eval("console.log('hi'); ({sum: a + b, dir: path.dirname('/x/y')})", 9000);
  client_has("\"result_json\":\"{\\\"sum\\\":11,\\\"dir\\\":\\\"/x\\\"}\"", "node: state and imports");
  check(strcmp(buf_text(&o->out), "hi\n") == 0, "node: output");
  client_eval("throw new TypeError('no')", 9000);
  client_has("\"error\":\"TypeError: no\"", "node: error");
  common("node", "while (true) {}");
  client_eval("await new Promise(() => {})", 300);
  client_has("\"timed_out\":true", "node: a wait is interrupted");
  client_eval("a", 9000);
  client_has("\"result\":\"5\"", "node: state survives interrupts");
  client_eval("[1, 2].map((x) => Math.random() < 1 ? x : 0)", 9000);
  client_has("\"result_json\":\"[1,2]\"", "node: Math.random");
  check(agent_stop(), "the agent ends well");
}
