#include "cells.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bounds.h"
#include "log.h"
#include "loop.h"

static const char *const names[CELLS] = {"forkd-commands", "forkd-runtime", "forkd-hooks"};

/* A cgroup that a freeze has stopped, or is stopping while its events are watched. */
struct group {
  char name[NAME_MAX + 1];
  int fd;
  struct watch events;
};

static int base = -1;
static int fds[CELLS] = {-1, -1, -1};
static bool frozen[CELLS];
static struct group groups[HOLD_GROUPS_MAX];
static size_t group_count;
static size_t running; /* groups that are not wholly stopped yet */
static void (*when_stopped)(void);
static struct timer stopped_timer;

static int open_cell(const char *name) {
  if (mkdirat(base, name, 0755) < 0 && errno != EEXIST) return -1;
  int fd = openat(base, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (fd >= 0 && faccessat(fd, "cgroup.freeze", W_OK, 0) < 0) {
    close(fd);
    fd = -1;
  }
  return fd;
}

void cells_init(const char *dir) {
  base = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  for (int i = 0; i < CELLS; i++) {
    fds[i] = base < 0 ? -1 : open_cell(names[i]);
    if (fds[i] < 0) {
      cells_give_up(strerror(errno));
      return;
    }
  }
}

int cell_fd(enum cell cell) { return fds[cell]; }
bool cell_is_frozen(enum cell cell) { return frozen[cell]; }

void cells_give_up(const char *why) {
  log_line("processes are not kept in cgroups and cannot be held: %s", why);
  for (int i = 0; i < CELLS; i++) {
    if (fds[i] >= 0) close(fds[i]);
    fds[i] = -1;
  }
}

static bool write_freeze(const struct group *g, bool on) {
  int fd = openat(g->fd, "cgroup.freeze", O_WRONLY | O_CLOEXEC);
  bool ok = fd >= 0 && write(fd, on ? "1" : "0", 1) == 1;
  if (fd >= 0) close(fd);
  return ok;
}

static bool freeze_is_set(const struct group *g) {
  char text[4] = "";
  int fd = openat(g->fd, "cgroup.freeze", O_RDONLY | O_CLOEXEC);
  bool set = fd >= 0 && read(fd, text, sizeof text - 1) > 0 && text[0] == '1';
  if (fd >= 0) close(fd);
  return set;
}

static void mark(const struct group *g, bool on) {
  for (int i = 0; i < CELLS; i++) {
    if (strcmp(g->name, names[i]) == 0) frozen[i] = on;
  }
}

static void close_events(struct group *g) {
  if (!g->events.active) return;
  loop_unwatch(&g->events);
  close(g->events.fd);
}

static void on_stopped(void *arg) {
  (void)arg;
  when_stopped();
}

/* Reading the file is also what arms its next event. A group that was removed is at rest. */
static bool is_at_rest(int fd) {
  char text[256];
  ssize_t n = pread(fd, text, sizeof text - 1, 0);
  text[n > 0 ? n : 0] = 0;
  return n <= 0 || strstr(text, "frozen 1") != NULL;
}

static void on_events(void *arg, uint32_t events) {
  struct group *g = arg;
  (void)events;
  if (!is_at_rest(g->events.fd)) return;
  close_events(g);
  if (--running == 0) timer_set(&stopped_timer, 0, on_stopped, NULL);
}

/* False when it vanished meanwhile, or is frozen by the guest itself and so not ours to thaw. */
static bool open_group(struct group *g, const char *name) {
  snprintf(g->name, sizeof g->name, "%s", name);
  g->events.active = false;
  g->fd = openat(base, name, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
  if (g->fd < 0) return false;
  if (!freeze_is_set(g)) return true;
  close(g->fd);
  return false;
}

static const char *stop_group(struct group *g) {
  int fd = openat(g->fd, "cgroup.events", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return strerror(errno);
  if (!write_freeze(g, true)) {
    close(fd);
    return strerror(errno);
  }
  mark(g, true);
  if (is_at_rest(fd)) {
    close(fd);
    return NULL;
  }
  running++;
  loop_watch(&g->events, fd, EPOLLPRI, on_events, g);
  return NULL;
}

static const char *stop_all(DIR *dir) {
  for (struct dirent *e; (e = readdir(dir));) {
    struct group *g = &groups[group_count];
    if (e->d_type != DT_DIR || e->d_name[0] == '.') continue;
    if (group_count == HOLD_GROUPS_MAX) return "too many cgroups";
    if (!open_group(g, e->d_name)) continue;
    group_count++;
    const char *why = stop_group(g);
    if (why) return why;
  }
  return NULL;
}

const char *cells_freeze(void (*stopped)(void)) {
  if (fds[CELL_COMMANDS] < 0) return "the guest's kernel has no cgroup v2 freezer";
  int fd = openat(base, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *dir = fd < 0 ? NULL : fdopendir(fd);
  if (!dir) {
    if (fd >= 0) close(fd);
    return "the cgroups cannot be listed";
  }
  when_stopped = stopped;
  const char *why = stop_all(dir);
  closedir(dir);
  if (why) {
    cells_thaw();
  } else if (running == 0) {
    timer_set(&stopped_timer, 0, on_stopped, NULL);
  }
  return why;
}

static void thaw_group(struct group *g) {
  if (!write_freeze(g, false)) log_line("thaw %.100s: %s", g->name, strerror(errno));
  mark(g, false);
}

void cell_thaw(enum cell cell) {
  for (size_t i = 0; i < group_count; i++) {
    if (frozen[cell] && strcmp(groups[i].name, names[cell]) == 0) thaw_group(&groups[i]);
  }
}

void cells_thaw(void) {
  timer_clear(&stopped_timer);
  for (size_t i = 0; i < group_count; i++) {
    close_events(&groups[i]);
    thaw_group(&groups[i]);
    close(groups[i].fd);
  }
  group_count = running = 0;
}
