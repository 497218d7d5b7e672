#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buf.h"

static char root[PATH_BYTES_MAX / 2];

void files_set_root(const char *dir) { snprintf(root, sizeof root, "%s", dir); }

bool files_path(const char *path, char out[PATH_BYTES_MAX]) {
  /* What the kernel says is the same under every root. */
  bool kernel = strncmp(path, "/proc/", 6) == 0 || strncmp(path, "/sys/", 5) == 0;
  int n = snprintf(out, PATH_BYTES_MAX, "%s%s", kernel ? "" : root, path);
  return n > 0 && n < PATH_BYTES_MAX;
}

char *file_read(const char *path, size_t max, size_t *len) {
  char real[PATH_BYTES_MAX];
  if (!files_path(path, real)) return NULL;
  int fd = open(real, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return NULL;
  struct stat st;
  struct buf b;
  buf_init(&b, max);
  bool ok = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
  uint8_t chunk[4096];
  ssize_t n = 0;
  while (ok && (n = read(fd, chunk, sizeof chunk)) > 0) ok = buf_add(&b, chunk, (size_t)n);
  close(fd);
  if (!ok || n < 0) {
    buf_free(&b);
    return NULL;
  }
  buf_text(&b);
  if (len) *len = b.len;
  return (char *)b.data;
}

bool file_write(const char *path, const char *text, size_t len, unsigned mode) {
  char real[PATH_BYTES_MAX];
  char temp[PATH_BYTES_MAX];
  if (!files_path(path, real)) return false;
  int n = snprintf(temp, sizeof temp, "%s.forkd", real);
  if (n < 0 || n >= (int)sizeof temp) return false;
  char *slash = strrchr(temp, '/');
  *slash = 0;
  mkdir(temp, 0755);
  *slash = '/';
  unlink(temp);
  int fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
  if (fd < 0) return false;
  bool ok = write(fd, text, len) == (ssize_t)len && fchmod(fd, mode) == 0;
  close(fd);
  ok = ok && rename(temp, real) == 0;
  if (!ok) unlink(temp);
  return ok;
}

int file_open_existing(const char *path) {
  char real[PATH_BYTES_MAX];
  if (!files_path(path, real)) return -1;
  int fd = open(real, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  struct stat st;
  if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) return fd;
  if (fd >= 0) close(fd);
  return -1;
}

bool file_overwrite(const char *path, const char *text, size_t len, unsigned mode) {
  int fd = file_open_existing(path);
  if (fd < 0) return file_write(path, text, len, mode);
  bool ok = ftruncate(fd, 0) == 0 && write(fd, text, len) == (ssize_t)len;
  close(fd);
  return ok || file_write(path, text, len, mode);
}
