/*
 * What a guest does with its scratch disk, on a test's order, which comes as code to evaluate:
 *
 *   #disk write OFFSET TEXT   plain letters, without a space
 *   #disk late OFFSET TEXT    the same, but Firecracker comes to it only when the guest is paused,
 *                             and does it before the snapshot, whose RAM then has it as done
 *   #disk read OFFSET BYTES   what is there, with a dot for each zero
 *
 * Unlike other code it is not remembered: a fork that knows of a write has it on its disk.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fake.h"

static const char lead[] = "#disk ";
static char late_text[DISK_WORDS_MAX];
static long late_at;

static const struct drive *scratch(void) {
  for (size_t i = 0; i < vm.drive_count; i++) {
    if (strcmp(vm.drives[i].id, "scratch") == 0) return &vm.drives[i];
  }
  return NULL;
}

bool disk_is_order(const char *code, size_t len) {
  return len > sizeof lead - 1 && memcmp(code, lead, sizeof lead - 1) == 0;
}

static bool carry_out(const struct drive *d, const char *order, char said[DISK_WORDS_MAX]) {
  long at = 0;
  size_t bytes = 0;
  char text[DISK_WORDS_MAX] = "";
  if (sscanf(order, "write %ld %127s", &at, text) == 2) {
    bytes = strlen(text);
    return pwrite(d->fd, text, bytes, at) == (ssize_t)bytes;
  }
  if (sscanf(order, "late %ld %127s", &late_at, late_text) == 2) return true;
  errno = EINVAL;
  if (sscanf(order, "read %ld %zu", &at, &bytes) != 2 || bytes >= sizeof text) return false;
  if (pread(d->fd, said, bytes, at) != (ssize_t)bytes) return false;
  for (size_t i = 0; i < bytes; i++) said[i] = said[i] ? said[i] : '.';
  return true;
}

bool disk_obey(const char *code, size_t len, char said[DISK_WORDS_MAX]) {
  char order[2 * DISK_WORDS_MAX] = "";
  const struct drive *d = scratch();
  memset(said, 0, DISK_WORDS_MAX);
  if (d && len < sizeof order) {
    memcpy(order, code, len);
    if (carry_out(d, order + sizeof lead - 1, said)) return true;
  }
  snprintf(said, DISK_WORDS_MAX, "%s", d ? strerror(errno) : "there is no scratch disk");
  return false;
}

void disk_settle(void) {
  const struct drive *d = scratch();
  size_t bytes = strlen(late_text);
  if (d && bytes > 0 && pwrite(d->fd, late_text, bytes, late_at) < 0) perror("fake: a late write");
  late_text[0] = 0;
}
