/* The saved state: a magic word, a sum over the rest, the devices as text, and some padding. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fake.h"

#define STATE_BYTES 8192
static const char magic[8] = "FAKEFC01";

static uint64_t sum_of(const uint8_t *data, size_t len) {
  uint64_t sum = 14695981039346656037ULL; /* FNV-1a */
  for (size_t i = 0; i < len; i++) sum = (sum ^ data[i]) * 1099511628211ULL;
  return sum;
}

static void describe(char *out, size_t max) {
  int n = snprintf(out, max, "version %s\nmem %u\nvcpus %u\nvsock %s\n", fake_version_text,
                   vm.mem_mib, vm.vcpus, vm.vsock);
  if (*vm.card.id) {
    n += snprintf(out + n, max - (size_t)n, "card %s %s\n", vm.card.id, vm.card.tap);
  }
  for (size_t i = 0; i < vm.drive_count; i++) {
    n += snprintf(out + n, max - (size_t)n, "drive %s %d %s\n", vm.drives[i].id,
                  vm.drives[i].read_only, vm.drives[i].path);
  }
}

bool state_save(const char *path, char why[256]) {
  static uint8_t file[STATE_BYTES];
  memset(file, 0, sizeof file);
  describe((char *)file + 16, sizeof file - 16);
  uint64_t sum = sum_of(file + 16, sizeof file - 16);
  memcpy(file, magic, sizeof magic);
  memcpy(file + 8, &sum, sizeof sum);
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  bool ok = fd >= 0 && write(fd, file, sizeof file) == (ssize_t)sizeof file && fsync(fd) == 0;
  if (!ok) {
    snprintf(why, 256, "Cannot perform open on the snapshot backing file: %s (os error %d)",
             strerror(errno), errno);
  }
  if (fd >= 0) close(fd);
  return ok;
}

static bool take_line(const char *line, char why[256]) {
  char version[32];
  struct drive *d = &vm.drives[vm.drive_count];
  int read_only;
  if (sscanf(line, "version %31s", version) == 1 && strcmp(version, fake_version_text) != 0) {
    snprintf(why, 256, "Snapshot file was created by version %s", version);
    return false;
  }
  sscanf(line, "mem %u", &vm.mem_mib);
  sscanf(line, "vcpus %u", &vm.vcpus);
  sscanf(line, "vsock %255s", vm.vsock);
  sscanf(line, "card %39s %15s", vm.card.id, vm.card.tap);
  if (vm.drive_count < DRIVES_MAX &&
      sscanf(line, "drive %39s %d %255s", d->id, &read_only, d->path) == 3) {
    d->read_only = read_only;
    vm.drive_count++;
  }
  return true;
}

/* What is wrong with a file of `n` bytes; NULL: nothing. */
static const char *damage_of(const uint8_t *file, ssize_t n) {
  uint64_t sum;
  memcpy(&sum, file + 8, sizeof sum);
  if (n < (ssize_t)sizeof sum) return "IO Error: File too short to contain CRC";
  if (n == STATE_BYTES && memcmp(file, magic, sizeof magic) == 0 &&
      sum == sum_of(file + 16, STATE_BYTES - 16)) {
    return NULL;
  }
  return "An error occurred during bitcode serialization: bitcode error";
}

bool state_load(const char *path, char why[256]) {
  static uint8_t file[STATE_BYTES + 1];
  static const char lead[] = "Failed to get snapshot state from file: Failed to";
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    snprintf(why, 256, "%s open snapshot file: %s (os error %d)", lead, strerror(errno), errno);
    return false;
  }
  const char *damage = damage_of(file, read(fd, file, STATE_BYTES));
  close(fd);
  if (damage) {
    snprintf(why, 256, "%s load snapshot state from file: %s", lead, damage);
    return false;
  }
  char *rest = (char *)file + 16;
  for (char *line; (line = strsep(&rest, "\n"));) {
    if (!take_line(line, why)) return false;
  }
  return true;
}
