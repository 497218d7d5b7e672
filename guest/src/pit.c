#include "boot.h"

#include <stdlib.h>
#include <string.h>

#include "files.h"
#include "log.h"

#define TICK_DEVICE "/sys/devices/system/clockevents/clockevent0/current_device"

#if defined(__x86_64__)
#include <sys/io.h>

/* Intel 8254: channel 0, low then high byte, mode 0 (one interrupt, then silence). */
#define PIT_CHANNEL_0 0x40
#define PIT_COMMAND 0x43
#define PIT_ONE_SHOT 0x30

/*
 * The firmware leaves the interval timer running. Nobody hears it once the local APIC ticks, but a
 * VMM that emulates it wakes 36 times a second for every idle guest.
 */
void boot_stop_pit(void) {
  char *device = file_read(TICK_DEVICE, 64, NULL);
  bool idle = device && strncmp(device, "lapic", 5) == 0;
  free(device);
  if (!idle) return;
  if (ioperm(PIT_CHANNEL_0, 4, 1) < 0) {
    log_line("the interval timer goes on: no access to its ports");
    return;
  }
  outb(PIT_ONE_SHOT, PIT_COMMAND);
  outb(0, PIT_CHANNEL_0);
  outb(0, PIT_CHANNEL_0);
  ioperm(PIT_CHANNEL_0, 4, 0);
}
#else
void boot_stop_pit(void) {}
#endif
