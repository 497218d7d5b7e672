#include "ping.h"

#include <string.h>
#include <unistd.h>

#include "op.h"
#include "runtime.h"
#include "warm.h"

void ping_fields(struct jw *w) {
  const char *runtime = runtime_name();
  jw_bool(w, "pong", true);
  jw_string(w, "numpy_version", runtime_numpy());
  jw_int(w, "pid", getpid());
  jw_string(w, "agent_lang", strcmp(runtime, "node") == 0 ? "node" : "python");
  jw_bool(w, "warmup_ready", strcmp(warm_state(), "ready") == 0);
}

void op_ping(struct ticket ticket, const struct json *request) {
  (void)request;
  ping_fields(reply_begin());
  reply_send(ticket);
}
