/* The guest's RAM: one mapping, and the record of the pages that were written. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fake.h"

static uint8_t *ram = MAP_FAILED;
static size_t bytes;
static uint8_t *record; /* a byte a page */

static bool take(void *at, size_t size) {
  if (at == MAP_FAILED) return false;
  ram = at;
  bytes = size;
  free(record);
  record = calloc(size / PAGE_BYTES, 1);
  return record != NULL;
}

bool ram_anonymous(unsigned mib) {
  size_t size = (size_t)mib << 20;
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  return take(mmap(NULL, size, PROT_READ | PROT_WRITE, flags, -1, 0), size);
}

bool ram_private(const char *path, unsigned mib, char why[256]) {
  static const char lead[] =
      "Failed to load guest memory: Error creating guest memory from file: Failed to";
  size_t size = (size_t)mib << 20;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  struct stat st;
  if (fd < 0 || fstat(fd, &st) < 0) {
    snprintf(why, 256, "%s load guest memory: %s (os error %d)", lead, strerror(errno), errno);
    return false;
  }
  if ((size_t)st.st_size != size) {
    snprintf(why, 256, "%s restore guest memory: Total sum of memory regions exceeds largest"
                       " possible file offset", lead);
    close(fd);
    return false;
  }
  int flags = MAP_PRIVATE | MAP_NORESERVE;
  bool ok = take(mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0), size);
  close(fd);
  if (!ok) snprintf(why, 256, "%s restore guest memory: %s", lead, strerror(errno));
  return ok;
}

size_t ram_bytes(void) { return bytes; }
const uint8_t *ram_at(size_t offset) { return ram + offset; }
void ram_forget_record(void) { memset(record, 0, bytes / PAGE_BYTES); }

void ram_write(size_t offset, const void *data, size_t len) {
  if (len == 0 || offset + len > bytes) return;
  memcpy(ram + offset, data, len);
  for (size_t page = offset / PAGE_BYTES; page <= (offset + len - 1) / PAGE_BYTES; page++) {
    record[page] = 1;
  }
}

static bool is_zero(size_t page) {
  const uint8_t *at = ram + page * PAGE_BYTES;
  return at[0] == 0 && memcmp(at, at + 1, PAGE_BYTES - 1) == 0;
}

static bool write_page(int fd, size_t page) {
  off_t at = (off_t)(page * PAGE_BYTES);
  return pwrite(fd, ram + page * PAGE_BYTES, PAGE_BYTES, at) == (ssize_t)PAGE_BYTES;
}

/* A diff goes into a file of the right size as it is; any other is emptied first. */
bool ram_dump(const char *path, bool diff, char why[256]) {
  bool existed = access(path, F_OK) == 0;
  int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  struct stat st;
  if (fd < 0) {
    snprintf(why, 256, "Cannot perform open on the memory backing file: %s (os error %d)",
             strerror(errno), errno);
    return false;
  }
  bool ok = fstat(fd, &st) == 0;
  if (ok && existed && (size_t)st.st_size != bytes) ok = ftruncate(fd, 0) == 0;
  ok = ok && ftruncate(fd, (off_t)bytes) == 0;
  for (size_t page = 0; ok && page < bytes / PAGE_BYTES; page++) {
    /* A whole dump of a new file may leave out what reads as zeros anyway. */
    bool wanted = diff ? record[page] : existed || !is_zero(page);
    if (wanted) ok = write_page(fd, page);
  }
  ok = ok && fsync(fd) == 0;
  if (!ok) snprintf(why, 256, "Cannot write memory file: %s (os error %d)", strerror(errno), errno);
  close(fd);
  ram_forget_record();
  return ok;
}
