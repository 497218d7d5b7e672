#include <signal.h>
#include <sys/reboot.h>
#include <unistd.h>

#include "log.h"
#include "loop.h"
#include "op.h"

void op_poweroff(struct ticket ticket, const struct json *request) {
  (void)ticket;
  (void)request;
  log_line("power off");
  if (getpid() != 1) {
    loop_stop();
    return;
  }
  sync();
  reboot(RB_POWER_OFF);
}
