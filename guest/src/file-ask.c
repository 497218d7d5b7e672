#include "file-ask.h"

#include <errno.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "frame.h"

#define RECORD_BYTES 36
#define RECORD_SIZE_EXACT 1

static const struct {
  int err;
  const char *code;
} codes[] = {
    {ENOENT, "file_not_found"},      {ENOTDIR, "not_a_directory"},
    {EISDIR, "is_a_directory"},      {EEXIST, "file_exists"},
    {ENOTEMPTY, "not_empty"},        {EACCES, "denied"},
    {EPERM, "denied"},               {EROFS, "denied"},
    {ENOSPC, "no_space"},            {EDQUOT, "no_space"},
    {EFBIG, "no_space"},             {ENAMETOOLONG, "bad_path"},
    {ELOOP, "bad_path"},             {EINVAL, "bad_path"},
};

void file_fail_as(const char *code, const char *what, const char *why) {
  dprintf(STDERR_FILENO, "%s %.400s: %s", code, what, why);
  _exit(1);
}

void file_fail(int err, const char *what) {
  const char *code = "file_failed";
  for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
    if (codes[i].err == err) code = codes[i].code;
  }
  file_fail_as(code, what, strerror(err));
}

bool file_asks(const struct file_ask *ask, char flag) { return strchr(ask->flags, flag) != NULL; }

void file_put(const void *data, size_t len) {
  const uint8_t *at = data;
  while (len > 0) {
    ssize_t n = write(STDOUT_FILENO, at, len);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) file_fail(errno, "the answer");
    at += n;
    len -= (size_t)n;
  }
}

static void put_le64(uint8_t *p, uint64_t v) {
  put_le32(p, (uint32_t)v);
  put_le32(p + 4, (uint32_t)(v >> 32));
}

void file_put_record(const struct stat *st, bool exact, const char *name, const char *target) {
  uint8_t head[RECORD_BYTES];
  size_t name_len = strlen(name);
  size_t target_len = strlen(target);
  int64_t mtime_ns = (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
  put_le32(head, st->st_mode);
  put_le32(head + 4, st->st_uid);
  put_le32(head + 8, st->st_gid);
  put_le32(head + 12, exact ? RECORD_SIZE_EXACT : 0);
  put_le64(head + 16, (uint64_t)st->st_size);
  put_le64(head + 24, (uint64_t)mtime_ns);
  put_le32(head + 32, (uint32_t)(name_len | target_len << 16));
  file_put(head, sizeof head);
  file_put(name, name_len);
  file_put(target, target_len);
}

bool file_is_kernels(int fd) {
  static const unsigned long kinds[] = {PROC_SUPER_MAGIC,   SYSFS_MAGIC,   CGROUP_SUPER_MAGIC,
                                        CGROUP2_SUPER_MAGIC, DEBUGFS_MAGIC, TRACEFS_MAGIC};
  struct statfs fs;
  if (fstatfs(fd, &fs) < 0) return false;
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    if ((unsigned long)fs.f_type == kinds[i]) return true;
  }
  return false;
}
