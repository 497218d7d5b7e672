/*
 * forkd-ram: gives QEMU a RAM made of two layers. A library for LD_PRELOAD, so that no copy of the
 * layers is ever put together: one file is mapped, and the extents of another over it.
 *
 * QEMU is told to take its RAM from a path that cannot exist (ram_path). This library opens the
 * base image in its place, read-only whatever QEMU asked for: a VMM holds no writable descriptor of
 * an image that others share. When QEMU maps it, the overlay's extents are mapped over it at once,
 * all private. A QEMU that runs without this library, or does not ask by these calls, cannot open
 * its RAM and ends: none ever runs with a part of it.
 *
 * From the environment, which is cleared of it:
 *   FORKD_RAM_BASE     the base image, one whole file
 *   FORKD_RAM_BYTES    its size
 *   FORKD_RAM_OVERLAY  a sparse file whose bytes lie at the offsets that they have in the RAM
 *   FORKD_RAM_EXTENTS  which of them lie over the base: (u64 offset, u64 length), little-endian,
 *                      sorted, whole pages, apart from each other. Both or neither of the two.
 *   FORKD_RAM_SELF_FD  the descriptor that this library was loaded from, to be closed
 *
 * It also opens one userfaultfd, registers nothing with it and keeps it: forkd-capture borrows it
 * to learn what the guest writes. A kernel that cannot track writes asynchronously gets none.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

/* From the kernel's headers, which may be older than the kernel (linux/userfaultfd.h, 6.7). */
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#define FORKD_UFFD_WP_UNPOPULATED (1ull << 13)
#define FORKD_UFFD_WP_ASYNC (1ull << 15)

/* One mapping an extent and one between two of them: half of the kernel's usual 65530 mappings. */
enum { extents_max = 16384 };

/* Below /dev/null, where no file can be or be created. */
static const char ram_path[] = "/dev/null/forkd-ram";

struct extent {
  uint64_t offset;
  uint64_t length;
};

static const char *base_path;
static const char *overlay_path;
static const char *extents_path;
static uint64_t ram_bytes;
/* The base as QEMU has it open; -1 before that and once it is mapped. */
static int base_fd = -1;

static _Noreturn void die(const char *what, const char *path) {
  dprintf(STDERR_FILENO, "forkd-ram: %s: %s: %s\n", path, what, strerror(errno));
  _exit(1);
}

static _Noreturn void die_of_form(const char *path, const char *why) {
  dprintf(STDERR_FILENO, "forkd-ram: %s: %s\n", path, why);
  _exit(1);
}

static void *real_mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset) {
  long at = syscall(SYS_mmap, addr, length, prot, flags, fd, offset);
  return (void *)at;
}

static int open_read_only(const char *path) {
  int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
  if (fd < 0) die("open", path);
  return fd;
}

static uint64_t size_of(int fd, const char *path) {
  struct stat st;
  if (fstat(fd, &st) != 0) die("fstat", path);
  return (uint64_t)st.st_size;
}

/* Each extent is whole pages, behind the one before it, and inside of both the RAM and the file. */
static void require_extent(struct extent extent, uint64_t from, uint64_t to) {
  uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
  bool pages = extent.offset % page == 0 && extent.length % page == 0 && extent.length > 0;
  bool apart = extent.offset >= from && extent.offset <= to;
  if (!pages || !apart) die_of_form(extents_path, "an extent is out of order or no whole pages");
  if (extent.length > to - extent.offset) die_of_form(extents_path, "an extent is past the end");
}

static void map_extent(uint8_t *ram, struct extent extent, int prot, int fd) {
  const int flags = MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE;
  void *at = ram + extent.offset;
  void *got = real_mmap(at, extent.length, prot, flags, fd, (off_t)extent.offset);
  if (got != at) die("mmap of an extent", overlay_path);
}

static void map_overlay(uint8_t *ram, int prot) {
  int table_fd = open_read_only(extents_path);
  int fd = open_read_only(overlay_path);
  uint64_t bytes = size_of(table_fd, extents_path);
  uint64_t overlay_bytes = size_of(fd, overlay_path);
  uint64_t end = overlay_bytes < ram_bytes ? overlay_bytes : ram_bytes;
  if (bytes % sizeof(struct extent) != 0) die_of_form(extents_path, "it is cut");
  uint64_t count = bytes / sizeof(struct extent);
  if (count > extents_max) die_of_form(extents_path, "it has too many extents");
  if (count > 0) {
    const struct extent *table = real_mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, table_fd, 0);
    if (table == MAP_FAILED) die("mmap", extents_path);
    uint64_t from = 0;
    for (uint64_t i = 0; i < count; i++) {
      require_extent(table[i], from, end);
      map_extent(ram, table[i], prot, fd);
      from = table[i].offset + table[i].length;
    }
    munmap((void *)(uintptr_t)table, bytes);
  }
  close(fd);
  close(table_fd);
}

static int open_any(const char *path, int flags, mode_t mode) {
  if (base_path != NULL && strcmp(path, ram_path) == 0) {
    base_fd = open_read_only(base_path);
    uint64_t bytes = size_of(base_fd, base_path);
    if (bytes != ram_bytes) die_of_form(base_path, "it is not the RAM's size");
    return base_fd;
  }
  return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

static void *map_any(void *addr, size_t length, int prot, int flags, int fd, off_t offset) {
  void *at = real_mmap(addr, length, prot, flags, fd, offset);
  if (fd < 0 || fd != base_fd) return at;
  if (at == MAP_FAILED) die("mmap", base_path);
  if ((flags & MAP_PRIVATE) == 0 || length != ram_bytes || offset != 0) {
    die_of_form(base_path, "QEMU maps it in a way that is not known");
  }
  if (overlay_path != NULL) map_overlay(at, prot);
  base_fd = -1;
  return at;
}

EXPORT void *mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset) {
  return map_any(addr, length, prot, flags, fd, offset);
}

EXPORT void *mmap64(void *addr, size_t length, int prot, int flags, int fd, off64_t offset) {
  return map_any(addr, length, prot, flags, fd, offset);
}

/* open(2) has a mode only when it may create. */
#define TAKE_MODE(flags, mode)                                \
  do {                                                        \
    const bool creates = (flags & (O_CREAT | __O_TMPFILE)) != 0; \
    va_list rest;                                             \
    va_start(rest, flags);                                    \
    if (creates) mode = va_arg(rest, mode_t);                 \
    va_end(rest);                                             \
  } while (0)

EXPORT int open(const char *path, int flags, ...) {
  mode_t mode = 0;
  TAKE_MODE(flags, mode);
  return open_any(path, flags, mode);
}

EXPORT int open64(const char *path, int flags, ...) {
  mode_t mode = 0;
  TAKE_MODE(flags, mode);
  return open_any(path, flags | O_LARGEFILE, mode);
}

/* What a fortified program calls instead when it gives no mode. */
EXPORT int __open_2(const char *path, int flags);
EXPORT int __open_2(const char *path, int flags) { return open_any(path, flags, 0); }
EXPORT int __open64_2(const char *path, int flags);
EXPORT int __open64_2(const char *path, int flags) {
  return open_any(path, flags | O_LARGEFILE, 0);
}

/* User mode only: needs no privilege, and nobody ever waits for a fault here. */
static void open_write_tracker(void) {
  const uint64_t features =
      FORKD_UFFD_WP_ASYNC | FORKD_UFFD_WP_UNPOPULATED | UFFD_FEATURE_PAGEFAULT_FLAG_WP;
  int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
  if (fd < 0) return;
  struct uffdio_api api = {.api = UFFD_API, .features = features};
  if (ioctl(fd, UFFDIO_API, &api) != 0) close(fd);
}

static uint64_t parse_number(const char *text) {
  char *end = NULL;
  errno = 0;
  unsigned long long value = strtoull(text, &end, 10);
  if (errno != 0 || end == text || *end != '\0') die_of_form(text, "it is no number");
  return value;
}

static const char *take(const char *name) {
  const char *value = getenv(name);
  /* The string stays where it is: unsetenv takes only the pointer away. */
  unsetenv(name);
  return value == NULL || *value == '\0' ? NULL : value;
}

__attribute__((constructor)) static void start(void) {
  base_path = take("FORKD_RAM_BASE");
  overlay_path = take("FORKD_RAM_OVERLAY");
  extents_path = take("FORKD_RAM_EXTENTS");
  const char *bytes = take("FORKD_RAM_BYTES");
  const char *self_fd = take("FORKD_RAM_SELF_FD");
  unsetenv("LD_PRELOAD");
  if (self_fd != NULL) close((int)parse_number(self_fd));
  if (base_path == NULL) return;
  if (bytes == NULL || (overlay_path == NULL) != (extents_path == NULL)) {
    die_of_form(base_path, "the environment lacks a part");
  }
  ram_bytes = parse_number(bytes);
  open_write_tracker();
}
