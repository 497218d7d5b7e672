#include <signal.h>

#include "agent-tests.h"
#include "tap.h"

int main(void) {
  signal(SIGPIPE, SIG_IGN);
  agent_session();
  agent_exec();
  agent_execs();
  agent_python();
  agent_node();
  agent_recipe();
  agent_hold();
  agent_tcp();
  agent_vsock();
  return tap_end();
}
