#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent-tests.h"
#include "client.h"
#include "tap.h"

static void put(const char *name, const char *text) {
  char path[256];
  snprintf(path, sizeof path, "%s/%s", agent_root(), name);
  FILE *f = fopen(path, "w");
  if (!f) return;
  fputs(text, f);
  fclose(f);
  chmod(path, 0755);
}

static const char bridge[] =
    "import json, sys\nprint(json.dumps({'ready': True}), flush=True)\n"
    "for line in sys.stdin:\n  r = json.loads(line)\n"
    "  if r['code'] == 'bad': o = {'id': r['id'], 'error': 'boom', 'stack': 'at x'}\n"
    "  else: o = {'id': r['id'], 'result': {'code': r['code']}}\n"
    "  print(json.dumps(o), flush=True)\n";

static void bridged(void) {
  char recipe[256];
  agent_start(0);
  put("bridge.py", bridge);
  snprintf(recipe, sizeof recipe,
           "FORKD_AGENT_LANG=node\nFORKD_WARMUP_CMD=\"python3 '%s/bridge.py'\"\n", agent_root());
  put("etc/forkd-recipe.env", recipe);
  client_attach();
  client_call("{\"op\":\"warm\",\"timeout_ms\":20000}");
  client_has("\"runtime\":\"node\"", "recipe: the bridge is ready");
  client_eval("1+1", 9000);
  client_has("\"ok\":true,\"result\":\"{\\\"code\\\": \\\"1+1\\\"}\"", "recipe: eval by the bridge");
  client_eval("bad", 9000);
  client_has("\"ok\":false,\"result\":null,\"result_json\":null,\"error\":\"boom\",\"traceback\":\"at x\"",
             "recipe: its errors");
  client_call("{\"op\":\"ping\"}");
  client_has("\"agent_lang\":\"node\",\"warmup_ready\":true", "recipe: ping");
  check(agent_stop(), "the agent ends well");
}

static void one(const char *request, const char *expected, const char *name) {
  agent_start(0);
  client_attach();
  client_call(request);
  client_has(expected, name);
  check(agent_stop(), "the agent ends well");
}

static void commands(void) {
  one("{\"op\":\"warm\",\"cmd\":\"exit 0\",\"timeout_ms\":9000}", "\"runtime\":\"none\"",
      "warm: a command that ends");
  one("{\"op\":\"warm\",\"cmd\":\"echo reason; exit 3\",\"timeout_ms\":9000}",
      "\"code\":\"warmup_failed\",\"message\":\"the warm-up command ended before it was ready (exit "
      "code 3)\\nreason", "warm: a command that fails");
  one("{\"op\":\"warm\",\"cmd\":[\"sh\",\"-c\",\"sleep 0.1; echo now serving; sleep 60\"],"
      "\"ready\":{\"line\":\"serving\"},\"timeout_ms\":9000}", "the command is ready", "warm: a line");
  one("{\"op\":\"warm\",\"cmd\":\"sleep 60\",\"ready\":{\"file\":\"/never\"},\"timeout_ms\":200}",
      "warmup_timeout", "warm: a timeout");
  one("{\"op\":\"warm\",\"cmd\":\"sleep 60\",\"ready\":{\"file\":\"/etc\"},\"timeout_ms\":9000}",
      "the command is ready", "warm: a file");
  one("{\"op\":\"warm\",\"cmd\":\"exec python3 -c \\\"import socket,time\\ns=socket.create_server"
      "(('127.0.0.1',18977))\\ntime.sleep(60)\\\"\",\"ready\":{\"tcp\":18977},\"timeout_ms\":9000}",
      "the command is ready", "warm: a port");
  one("{\"op\":\"warm\",\"cmd\":\"true\",\"ready\":{\"tcp\":0},\"timeout_ms\":9000}", "bad_request",
      "warm: a bad probe");
  one("{\"op\":\"warm\",\"runtime\":\"python\",\"imports\":[\"no_such_module\"],\"timeout_ms\":9000}",
      "No module named", "warm: an import that is missing");
  one("{\"op\":\"warm\",\"runtime\":\"perl\",\"timeout_ms\":9000}", "bad_request",
      "warm: an unknown runtime");
  one("{\"op\":\"warm\",\"timeout_ms\":9000}", "nothing to warm", "warm: nothing");
}

void agent_recipe(void) {
  bridged();
  commands();
}
