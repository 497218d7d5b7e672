/* The VMM's process, pinned: what is read is of the process that was meant, or it fails. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#include "capture.h"

enum {
  /* IOV_MAX of Linux (uio.h). */
  vectors_max = 1024,
  /* From the loss of a process's memory to its end. */
  end_ms_max = 500,
};

/* A file whose mappings are the RAM. */
struct layer {
  dev_t device;
  ino_t inode;
};

struct layers {
  struct layer of[2];
  size_t count;
  /* Some file systems show another device in the maps than stat does: then inodes have to do. */
  bool by_device;
};

/* Field 22 of /proc/PID/stat (proc(5)); 0 when there is no such process. */
static uint64_t start_ticks_of(pid_t pid) {
  char path[64], text[1024];
  snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
  if (fd >= 0) close(fd);
  if (got <= 0) return 0;
  text[got] = '\0';
  char *at = strrchr(text, ')');
  for (int field = 2; at != NULL && field < 22; field++) at = strchr(at + 1, ' ');
  return at == NULL ? 0 : strtoull(at, NULL, 10);
}

static void require_identity(struct target *target, const struct options *options) {
  target->pid = options->pid;
  target->pidfd = (int)syscall(SYS_pidfd_open, options->pid, 0);
  if (target->pidfd < 0 || start_ticks_of(options->pid) != options->start_ticks) {
    fail(CODE_GONE, "the process %d is not the VMM that was meant", (int)options->pid);
  }
}

static void add_layer(struct layers *layers, const char *path) {
  struct stat st;
  if (stat(path, &st) != 0) fail_errno("stat", path);
  layers->of[layers->count++] = (struct layer){st.st_dev, st.st_ino};
}

static bool is_layer(const struct layers *layers, dev_t device, ino_t inode) {
  for (size_t i = 0; i < layers->count; i++) {
    const struct layer *layer = &layers->of[i];
    if (layer->inode == inode && (!layers->by_device || layer->device == device)) return true;
  }
  return false;
}

struct mapping {
  uint64_t start;
  uint64_t end;
  uint64_t offset;
};

/* A private, writable mapping of one of the layers. */
static bool parse_mapping(const char *line, const struct layers *layers, struct mapping *mapping) {
  char mode[5];
  unsigned major_id, minor_id;
  uint64_t inode;
  int fields = sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %x:%x %" SCNu64,
                      &mapping->start, &mapping->end, mode, &mapping->offset, &major_id, &minor_id,
                      &inode);
  if (fields != 7 || strncmp(mode, "rw", 2) != 0 || mode[3] != 'p') return false;
  return is_layer(layers, makedev(major_id, minor_id), inode);
}

/* The layers' mappings are the RAM when they make one range, each byte at its own offset. */
static bool find_ram(struct target *target, const struct layers *layers) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/maps", (int)target->pid);
  FILE *maps = fopen(path, "re");
  if (maps == NULL) fail_errno("open", path);
  char *line = NULL;
  size_t size = 0;
  uint64_t mapped = 0;
  bool fits = true;
  struct mapping at;
  while (getline(&line, &size, maps) > 0) {
    if (!parse_mapping(line, layers, &at)) continue;
    if (mapped == 0) target->ram_address = at.start - at.offset;
    fits = fits && at.start - at.offset == target->ram_address;
    fits = fits && at.end - target->ram_address <= target->ram_bytes;
    mapped += at.end - at.start;
  }
  free(line);
  fclose(maps);
  return fits && mapped == target->ram_bytes;
}

static void require_ram(struct target *target, const struct options *options) {
  struct layers layers = {.by_device = true};
  add_layer(&layers, options->base);
  if (options->overlay != NULL) add_layer(&layers, options->overlay);
  target->ram_bytes = options->ram_bytes;
  if (find_ram(target, &layers)) return;
  layers.by_device = false;
  if (find_ram(target, &layers)) return;
  fail(CODE_LAYOUT, "the VMM does not map %s as its RAM", options->base);
}

void target_open(struct target *target, const struct options *options) {
  require_identity(target, options);
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/pagemap", (int)target->pid);
  target->pagemap_fd = open(path, O_RDONLY | O_CLOEXEC);
  if (target->pagemap_fd < 0) fail_errno("open", path);
  require_ram(target, options);
  target_require_alive(target);
}

static void require_alive_after(const struct target *target, int wait_ms) {
  struct pollfd ended = {.fd = target->pidfd, .events = POLLIN};
  if (poll(&ended, 1, wait_ms) != 0) fail(CODE_GONE, "the VMM ended");
}

void target_require_alive(const struct target *target) { require_alive_after(target, 0); }

void target_blame_end(const struct target *target) {
  int error = errno;
  require_alive_after(target, end_ms_max);
  errno = error;
}

static void read_batch(const struct target *target, const struct run *runs, size_t count,
                       uint8_t *to) {
  struct iovec remote[vectors_max];
  size_t bytes = 0;
  for (size_t i = 0; i < count; i++) {
    /* An address of the other process: never followed here. */
    remote[i].iov_base = (void *)(uintptr_t)(target->ram_address + runs[i].offset);
    remote[i].iov_len = runs[i].length;
    bytes += runs[i].length;
  }
  struct iovec local = {.iov_base = to, .iov_len = bytes};
  ssize_t got = process_vm_readv(target->pid, &local, 1, remote, count, 0);
  if (got >= 0 && (size_t)got == bytes) return;
  if (got >= 0) errno = EFAULT;
  target_blame_end(target);
  fail_errno("read", "the VMM's memory");
}

void target_read(const struct target *target, const struct run *runs, size_t count, uint8_t *to) {
  while (count > 0) {
    size_t batch = count < vectors_max ? count : vectors_max;
    read_batch(target, runs, batch, to);
    for (size_t i = 0; i < batch; i++) to += runs[i].length;
    runs += batch;
    count -= batch;
  }
}
