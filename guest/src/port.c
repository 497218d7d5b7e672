#include "port.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "files.h"
#include "loop.h"

#define PORTS_DIR "/sys/class/virtio-ports"

static int open_node(const char *node) {
  char path[300];
  snprintf(path, sizeof path, "/dev/%.200s", node);
  return open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
}

static bool named(const char *node, const char *name) {
  char path[400];
  snprintf(path, sizeof path, PORTS_DIR "/%.200s/name", node);
  char *text = file_read(path, 4096, NULL);
  if (!text) return false;
  text[strcspn(text, "\n")] = 0;
  bool same = strcmp(text, name) == 0;
  free(text);
  return same;
}

static int find_port(const char *name) {
  char path[300];
  snprintf(path, sizeof path, "virtio-ports/%.200s", name);
  int fd = open_node(path);
  if (fd >= 0) return fd;
  DIR *dir = opendir(PORTS_DIR);
  if (!dir) return -1;
  for (struct dirent *e; fd < 0 && (e = readdir(dir));) {
    if (e->d_name[0] != '.' && named(e->d_name, name)) fd = open_node(e->d_name);
  }
  closedir(dir);
  return fd;
}

/* The name arrives in a message after the device node: new nodes are an event, names are not, so
 * the wait is also cut into short pieces. */
int port_open(const char *name, unsigned wait_ms) {
  uint64_t end = now_ms() + wait_ms;
  int notify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
  if (notify >= 0) inotify_add_watch(notify, "/dev", IN_CREATE);
  int fd;
  while ((fd = find_port(name)) < 0 && now_ms() < end) {
    struct pollfd p = {.fd = notify, .events = POLLIN};
    poll(&p, 1, 20);
    char events[4096];
    ssize_t ignored = read(notify, events, sizeof events);
    (void)ignored;
  }
  if (notify >= 0) close(notify);
  return fd;
}
