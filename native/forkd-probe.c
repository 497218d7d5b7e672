/*
 * forkd-probe: tries the kernel's calls that forkd needs and Node cannot make, and prints what came
 * of each as lines of `NAME ok` or `NAME ERRNO MESSAGE`. For `forkd doctor`.
 *
 *   userfaultfd       opened for faults of user mode, with the features that live branches need
 *   uffd-wp-private   pages of a private mapping are write-protected with it, asynchronously
 *   uffd-wp-shmem     pages of shared memory are
 *   pagemap-scan      /proc/self/pagemap says which pages were written (Linux 6.7)
 *   memfd             memory without a file
 *   clock             the kernel's clock is kept in step by a server of time (adjtimex(2))
 *
 * Exit: 0, whatever it found.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/timex.h>
#include <unistd.h>

#include "pagemap-scan.h"

/* From the kernel's headers, which may be older than the kernel (linux/userfaultfd.h, 6.7). */
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#define FORKD_UFFD_WP (1ull << 0)
#define FORKD_UFFD_WP_SHMEM (1ull << 12)
#define FORKD_UFFD_WP_UNPOPULATED (1ull << 13)
#define FORKD_UFFD_WP_ASYNC (1ull << 15)

static void report(const char *name, bool ok) {
  int error = errno;
  if (ok) printf("%s ok\n", name);
  else printf("%s %d %s\n", name, error, strerror(error));
}

/* A userfaultfd with these features; -1 with errno. */
static int open_uffd(uint64_t features) {
  int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
  if (fd < 0) return -1;
  struct uffdio_api api = {.api = UFFD_API, .features = features};
  if (ioctl(fd, UFFDIO_API, &api) == 0) return fd;
  int error = errno;
  close(fd);
  errno = error;
  return -1;
}

/* Whether one page there can be write-protected with it. */
static bool protects(int fd, void *page, size_t size) {
  if (fd < 0 || page == MAP_FAILED) return false;
  *(volatile char *)page = 1;
  struct uffdio_range range = {.start = (uintptr_t)page, .len = size};
  struct uffdio_register want = {.range = range, .mode = UFFDIO_REGISTER_MODE_WP};
  if (ioctl(fd, UFFDIO_REGISTER, &want) != 0) return false;
  struct uffdio_writeprotect protect = {.range = range, .mode = UFFDIO_WRITEPROTECT_MODE_WP};
  return ioctl(fd, UFFDIO_WRITEPROTECT, &protect) == 0;
}

/* In a process that does not need the page any more: it is given back at the end. */
static void try_private(size_t size) {
  int fd = open_uffd(FORKD_UFFD_WP | FORKD_UFFD_WP_UNPOPULATED | FORKD_UFFD_WP_ASYNC);
  report("userfaultfd", fd >= 0);
  if (fd < 0) return report("uffd-wp-private", false);
  int flags = MAP_PRIVATE | MAP_ANONYMOUS;
  void *page = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, -1, 0);
  report("uffd-wp-private", protects(fd, page, size));
}

static void try_shared(size_t size) {
  int memory = memfd_create("forkd-probe", MFD_CLOEXEC);
  bool sized = memory >= 0 && ftruncate(memory, (off_t)size) == 0;
  report("memfd", sized);
  if (!sized) return report("uffd-wp-shmem", false);
  void *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
  int fd = open_uffd(FORKD_UFFD_WP | FORKD_UFFD_WP_SHMEM);
  report("uffd-wp-shmem", protects(fd, page, size));
}

/* A range of no bytes: does the kernel know the call at all? */
static void try_scan(void) {
  int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  struct scan_request request = {.size = sizeof request};
  report("pagemap-scan", fd >= 0 && ioctl(fd, FORKD_PAGEMAP_SCAN, &request) >= 0);
}

static void try_clock(void) {
  struct timex state = {.modes = 0};
  int is = adjtimex(&state);
  if (is == TIME_ERROR || (is >= 0 && (state.status & STA_UNSYNC) != 0)) {
    errno = ETIME;
    is = -1;
  }
  report("clock", is >= 0);
}

int main(void) {
  size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
  try_private(page_size);
  try_shared(page_size);
  try_scan();
  try_clock();
  return 0;
}
