#include <signal.h>
#include <string.h>

#include "agent-tests.h"
#include "file-worker.h"
#include "tap.h"

int main(int argc, char **argv) {
  /* The agent starts its own program for work on files. */
  if (argc > 1 && strcmp(argv[1], FILE_WORKER_WORD) == 0) return file_worker(argc - 2, argv + 2);
  signal(SIGPIPE, SIG_IGN);
  agent_session();
  agent_exec();
  agent_execs();
  agent_file();
  agent_python();
  agent_node();
  agent_recipe();
  agent_hold();
  agent_tcp();
  agent_vsock();
  return tap_end();
}
