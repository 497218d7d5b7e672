/*
 * What a guest does with its scratch disk, on a test's order, which comes as code to evaluate:
 *
 *   #disk write OFFSET TEXT   plain letters, without a space
 *   #disk late OFFSET TEXT    the same, but Firecracker comes to it only when the guest is paused,
 *                             and does it before the snapshot, whose RAM then has it as done
 *   #disk resumed OFFSET TEXT the same, but done the moment that the guest is resumed
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

/* A write that waits for its moment; without a text there is none. */
struct later {
  char text[DISK_WORDS_MAX];
  long at;
};
static struct later settled, resumed;

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
  if (sscanf(order, "late %ld %127s", &settled.at, settled.text) == 2) return true;
  if (sscanf(order, "resumed %ld %127s", &resumed.at, resumed.text) == 2) return true;
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

static void do_now(struct later *write) {
  const struct drive *d = scratch();
  size_t bytes = strlen(write->text);
  if (d && bytes > 0 && pwrite(d->fd, write->text, bytes, write->at) < 0) perror("fake: a write");
  write->text[0] = 0;
}

void disk_settle(void) { do_now(&settled); }

void disk_resume(void) { do_now(&resumed); }
