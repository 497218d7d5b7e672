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
  dev_t device;
  ino_t inode;
};

/* A private, writable mapping of a file; false for any other line. */
static bool parse_mapping(const char *line, struct mapping *mapping) {
  char mode[5];
  unsigned major_id, minor_id;
  uint64_t inode;
  int fields = sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %x:%x %" SCNu64,
                      &mapping->start, &mapping->end, mode, &mapping->offset, &major_id, &minor_id,
                      &inode);
  mapping->device = makedev(major_id, minor_id);
  mapping->inode = inode;
  return fields == 7 && inode != 0 && strncmp(mode, "rw", 2) == 0 && mode[3] == 'p';
}

struct mappings {
  struct mapping *list;
  size_t count;
};

static struct mappings read_mappings(pid_t pid) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/maps", (int)pid);
  FILE *maps = fopen(path, "re");
  if (maps == NULL) fail_errno("open", path);
  struct mappings found = {NULL, 0};
  char *line = NULL;
  size_t size = 0, capacity = 0;
  struct mapping at;
  while (getline(&line, &size, maps) > 0) {
    if (!parse_mapping(line, &at)) continue;
    if (found.count == capacity) {
      capacity = capacity * 2 + 256;
      found.list = realloc(found.list, capacity * sizeof *found.list);
      if (found.list == NULL) fail_errno("allocate", path);
    }
    found.list[found.count++] = at;
  }
  free(line);
  fclose(maps);
  return found;
}

/* Where a RAM begins that one of the layers is mapped into; 0 when none is. */
static uint64_t find_ram(const struct mappings *mappings, const struct layers *layers) {
  for (size_t i = 0; i < mappings->count; i++) {
    const struct mapping *at = &mappings->list[i];
    if (is_layer(layers, at->device, at->inode)) return at->start - at->offset;
  }
  return 0;
}

/*
 * The range is a RAM of files when each byte of it is mapped at its own offset. Which files is no
 * matter: an overlay may have been made anew, with the same bytes, since the VMM mapped it.
 */
static bool is_ram(const struct mappings *mappings, uint64_t from, uint64_t bytes) {
  uint64_t mapped = 0;
  for (size_t i = 0; i < mappings->count; i++) {
    const struct mapping *at = &mappings->list[i];
    if (at->start < from || at->end > from + bytes) continue;
    if (at->start - at->offset != from) return false;
    mapped += at->end - at->start;
  }
  return mapped == bytes;
}

static void require_ram(struct target *target, const struct options *options) {
  struct layers layers = {.by_device = true};
  add_layer(&layers, options->base);
  if (options->overlay != NULL) add_layer(&layers, options->overlay);
  struct mappings mappings = read_mappings(target->pid);
  target->ram_bytes = options->ram_bytes;
  target->ram_address = find_ram(&mappings, &layers);
  layers.by_device = false;
  if (target->ram_address == 0) target->ram_address = find_ram(&mappings, &layers);
  bool whole = is_ram(&mappings, target->ram_address, target->ram_bytes);
  free(mappings.list);
  if (!whole) fail(CODE_LAYOUT, "the VMM does not map %s as its RAM", options->base);
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
