/*
 * Asynchronous write protection: the kernel notes each first write to a protected page and lets it
 * through, so nobody has to answer. It belongs to a userfaultfd of the VMM, which forkd-ram opened
 * at its start and which is borrowed here.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "capture.h"

/* A quarter of a millisecond of work for the kernel. */
static const uint64_t piece_bytes = 32 * 1024 * 1024;

static struct {
  int fd;
  struct uffdio_range range;
} tracker = {.fd = -1};

static bool is_tracker(pid_t pid, const char *name) {
  char path[320], target[64];
  snprintf(path, sizeof path, "/proc/%d/fd/%s", (int)pid, name);
  ssize_t length = readlink(path, target, sizeof target - 1);
  if (length < 0) return false;
  target[length] = '\0';
  return strcmp(target, "anon_inode:[userfaultfd]") == 0;
}

/* The number of the VMM's userfaultfd; -1 when it has none. */
static int find_tracker(pid_t pid) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
  DIR *dir = opendir(path);
  if (dir == NULL) fail_errno("open", path);
  int found = -1;
  for (struct dirent *entry; found < 0 && (entry = readdir(dir)) != NULL;) {
    if (is_tracker(pid, entry->d_name)) found = atoi(entry->d_name);
  }
  closedir(dir);
  return found;
}

void tracker_start(const struct target *target) {
  if (!scan_has_ioctl()) fail(CODE_LIVE, "the kernel cannot scan page maps (it is before 6.7)");
  int theirs = find_tracker(target->pid);
  if (theirs < 0) {
    fail(CODE_LIVE, "the VMM has no write tracking: the kernel that it started on cannot do it");
  }
  int fd = (int)syscall(SYS_pidfd_getfd, target->pidfd, theirs, 0);
  if (fd < 0) fail(CODE_LIVE, "the VMM's write tracking cannot be had: %s", strerror(errno));
  tracker.range = (struct uffdio_range){target->ram_address, target->ram_bytes};
  tracker.fd = fd;
  struct uffdio_register want = {.range = tracker.range, .mode = UFFDIO_REGISTER_MODE_WP};
  if (ioctl(fd, UFFDIO_REGISTER, &want) != 0) {
    target_blame_end(target);
    fail(CODE_LIVE, "the kernel does not track writes to the VMM's RAM: %s", strerror(errno));
  }
}

/* Piece by piece: the kernel locks the address space for each, and the guest may have to wait. */
void tracker_stop(void) {
  if (tracker.fd < 0) return;
  uint64_t end = tracker.range.start + tracker.range.len;
  for (uint64_t at = tracker.range.start; at < end; at += piece_bytes) {
    struct uffdio_range piece = {at, end - at < piece_bytes ? end - at : piece_bytes};
    ioctl(tracker.fd, UFFDIO_UNREGISTER, &piece);
  }
  close(tracker.fd);
  tracker.fd = -1;
}
