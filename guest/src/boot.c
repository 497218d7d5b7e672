#include "boot.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files.h"
#include "bounds.h"
#include "log.h"
#include "loop.h"

static void take(const char *word, const char *name, char *out, size_t max) {
  size_t len = strlen(name);
  if (strncmp(word, name, len) != 0 || word[len] != '=') return;
  if (snprintf(out, max, "%s", word + len + 1) >= (int)max) log_fatal("%s is too long", name);
}

static bool plain_name(const char *name) {
  return *name != '.' && !strchr(name, '/');
}

void boot_options_read(struct boot_options *options) {
  memset(options, 0, sizeof *options);
  strcpy(options->channel, "dev.forkd.agent");
  char mib[24] = "";
  char *line = file_read("/proc/cmdline", CMDLINE_BYTES_MAX, NULL);
  if (!line) log_fatal("cannot read /proc/cmdline");
  char *rest = line;
  for (char *word; (word = strsep(&rest, " \n"));) {
    take(word, "forkd.root", options->root, sizeof options->root);
    take(word, "forkd.scratch", options->scratch, sizeof options->scratch);
    take(word, "forkd.channel", options->channel, sizeof options->channel);
    take(word, "forkd.upper_mib", mib, sizeof mib);
  }
  free(line);
  if (!*options->root) log_fatal("the kernel command line has no forkd.root");
  if (!plain_name(options->root) || !plain_name(options->scratch)) {
    log_fatal("forkd.root and forkd.scratch are names of devices without a path");
  }
  char *end;
  options->upper_mib = strtoul(mib, &end, 10);
  if (*end || options->upper_mib > 1UL << 24) log_fatal("forkd.upper_mib is not a size");
}

static void try_mount(const char *type, const char *to) {
  mkdir(to, 0755);
  if (mount(type, to, type, MS_NOSUID, NULL) < 0 && errno != EBUSY) {
    log_fatal("mount %s: %s", to, strerror(errno));
  }
}

void boot_early(void) {
  try_mount("proc", "/proc");
  try_mount("sysfs", "/sys");
  try_mount("devtmpfs", "/dev");
  int fd = open("/dev/console", O_RDWR | O_NOCTTY | O_CLOEXEC);
  int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null >= 0) {
    dup2(null, 0);
    dup2(fd >= 0 ? fd : null, 1);
    dup2(fd >= 0 ? fd : null, 2);
  }
  if (fd > 2) close(fd);
  if (null > 2) close(null);
  /* Ctrl-Alt-Del is a request to the agent, not an instant reset. */
  reboot(RB_DISABLE_CAD);
}

void device_wait(const char *name) {
  char path[128];
  snprintf(path, sizeof path, "/dev/%s", name);
  int notify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
  inotify_add_watch(notify, "/dev", IN_CREATE);
  uint64_t end = now_ms() + DEVICE_WAIT_MS;
  while (access(path, F_OK) < 0) {
    if (now_ms() >= end) log_fatal("%s did not appear in %d ms", path, DEVICE_WAIT_MS);
    struct pollfd p = {.fd = notify, .events = POLLIN};
    poll(&p, 1, 100);
    char events[4096];
    ssize_t ignored = read(notify, events, sizeof events);
    (void)ignored;
  }
  close(notify);
}

void boot_priority(void) {
  struct sched_param none = {0};
  bool ok = sched_setscheduler(0, SCHED_OTHER | SCHED_RESET_ON_FORK, &none) == 0;
  if (!ok || setpriority(PRIO_PROCESS, 0, AGENT_NICE) < 0) log_line("priority: %s", strerror(errno));
}

void boot_loopback(void) {
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  struct ifreq r;
  memset(&r, 0, sizeof r);
  strcpy(r.ifr_name, "lo");
  if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &r) < 0) {
    log_line("no loopback interface: %s", strerror(errno));
  } else {
    r.ifr_flags |= IFF_UP;
    if (ioctl(fd, SIOCSIFFLAGS, &r) < 0) log_line("lo: %s", strerror(errno));
  }
  if (fd >= 0) close(fd);
}
