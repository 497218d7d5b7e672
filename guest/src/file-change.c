#include "file-change.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "bounds.h"
#include "files.h"
#include "frame.h"

/* A tree that is removed may be this deep: each level holds a descriptor. */
#define REMOVE_DEPTH_MAX 512
#define FILE_MODE_USUAL 0644
/* Of a new file and of one that is replaced, as chmod takes it. */
#define MODE_BITS 07777

/* What is written before it gets its name. */
struct draft {
  char path[PATH_BYTES_MAX];
  char temp[PATH_BYTES_MAX];
  int fd;
};

static void __attribute__((noreturn)) drop(struct draft *d, int err) {
  unlink(d->temp);
  file_fail(err, d->path);
}

/* All of `len` bytes of standard input; false at its end. */
static bool take(uint8_t *into, size_t len) {
  while (len > 0) {
    ssize_t n = read(STDIN_FILENO, into, len);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    into += n;
    len -= (size_t)n;
  }
  return true;
}

static void put(struct draft *d, const uint8_t *data, size_t len) {
  while (len > 0) {
    ssize_t n = write(d->fd, data, len);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) drop(d, errno);
    data += n;
    len -= (size_t)n;
  }
}

/* Pieces, each with its length in front, up to the empty one: an end without it is a cut. */
static void take_pieces(struct draft *d) {
  static uint8_t piece[FRAME_PAYLOAD_BYTES_MAX];
  for (;;) {
    uint8_t word[4];
    bool whole = take(word, sizeof word);
    uint32_t len = whole ? le32(word) : 0;
    if (whole && len == 0) return;
    if (!whole || len > sizeof piece || !take(piece, len)) {
      unlink(d->temp);
      file_fail_as("cut", d->path, "its bytes ended early");
    }
    put(d, piece, len);
  }
}

/* Where the file is to be: behind a link, what that leads to. True when there is one already. */
static bool find_place(const struct file_ask *ask, struct draft *d, struct stat *st) {
  snprintf(d->path, sizeof d->path, "%s", ask->path);
  if (lstat(ask->path, st) < 0) {
    if (errno != ENOENT) file_fail(errno, ask->path);
    return false;
  }
  if (file_asks(ask, FILE_FLAG_EXCLUSIVE)) file_fail(EEXIST, ask->path);
  if (S_ISLNK(st->st_mode) && (!realpath(ask->path, d->path) || stat(d->path, st) < 0)) {
    file_fail(errno, ask->path);
  }
  if (S_ISDIR(st->st_mode)) file_fail(EISDIR, ask->path);
  if (!S_ISREG(st->st_mode)) file_fail_as("not_a_file", ask->path, "not a regular file");
  /* Who may not write to a file may not replace it either, whatever its directory allows. */
  int fd = open(d->path, O_WRONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) file_fail(errno, ask->path);
  bool kernels = file_is_kernels(fd);
  close(fd);
  if (kernels) file_fail_as("not_a_file", ask->path, "a file of the kernel; write to it by a command");
  return true;
}

static void open_draft(struct draft *d) {
  uint64_t number;
  if (getrandom(&number, sizeof number, GRND_NONBLOCK) != sizeof number) file_fail(errno, d->path);
  const char *slash = strrchr(d->path, '/');
  int dir = slash ? (int)(slash - d->path) + 1 : 0;
  /* A name that ends in a slash is no file's. */
  if (d->path[dir] == 0) file_fail(EISDIR, d->path);
  int n = snprintf(d->temp, sizeof d->temp, "%.*s.forkd-%016llx.tmp", dir, d->path,
                   (unsigned long long)number);
  if (n >= (int)sizeof d->temp) file_fail(ENAMETOOLONG, d->path);
  d->fd = open(d->temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (d->fd < 0) file_fail(errno, d->path);
}

void file_write_action(const struct file_ask *ask) {
  struct draft d;
  struct stat old;
  struct stat st;
  bool replaces = find_place(ask, &d, &old);
  open_draft(&d);
  take_pieces(&d);
  mode_t mode = replaces ? old.st_mode & MODE_BITS : FILE_MODE_USUAL;
  if (ask->mode >= 0) mode = (mode_t)ask->mode;
  /* The owner first: a change of it takes set-id bits away. Only root can keep another's. */
  if (replaces && geteuid() == 0 && fchown(d.fd, old.st_uid, old.st_gid) < 0) drop(&d, errno);
  if (fchmod(d.fd, mode) < 0 || fstat(d.fd, &st) < 0) drop(&d, errno);
  if (close(d.fd) < 0) drop(&d, errno);
  if (file_asks(ask, FILE_FLAG_EXCLUSIVE)) {
    if (renameat2(AT_FDCWD, d.temp, AT_FDCWD, d.path, RENAME_NOREPLACE) < 0) drop(&d, errno);
  } else if (rename(d.temp, d.path) < 0) {
    drop(&d, errno);
  }
  file_put_record(&st, true, "", "");
}

static void remove_entries(int fd, dev_t dev, int depth, const char *path);

/* Links are removed, never followed; what is mounted in the tree is left, with an error. */
static void remove_tree(int parent, const char *name, dev_t dev, int depth, const char *path) {
  int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  struct stat st;
  if (fd < 0 || fstat(fd, &st) < 0) file_fail(errno, path);
  if (st.st_dev != dev) file_fail_as("denied", path, "something is mounted in it");
  if (depth > REMOVE_DEPTH_MAX) file_fail_as("bad_path", path, "its directories are too deep");
  remove_entries(fd, dev, depth, path);
  if (unlinkat(parent, name, AT_REMOVEDIR) < 0) file_fail(errno, path);
}

static void remove_entries(int fd, dev_t dev, int depth, const char *path) {
  DIR *dir = fdopendir(fd);
  if (!dir) file_fail(errno, path);
  for (struct dirent *e; (e = readdir(dir));) {
    if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
    struct stat st;
    if (fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0) continue;
    if (S_ISDIR(st.st_mode)) {
      remove_tree(fd, e->d_name, dev, depth + 1, path);
    } else if (unlinkat(fd, e->d_name, 0) < 0 && errno != ENOENT) {
      file_fail(errno, path);
    }
  }
  closedir(dir);
}

void file_remove_action(const struct file_ask *ask) {
  struct stat st;
  struct stat root;
  if (lstat(ask->path, &st) < 0) file_fail(errno, ask->path);
  if (!S_ISDIR(st.st_mode)) {
    if (unlink(ask->path) < 0) file_fail(errno, ask->path);
    return;
  }
  if (stat("/", &root) == 0 && root.st_dev == st.st_dev && root.st_ino == st.st_ino) {
    file_fail_as("denied", ask->path, "the root directory is not removed");
  }
  if (file_asks(ask, FILE_FLAG_RECURSIVE)) {
    remove_tree(AT_FDCWD, ask->path, st.st_dev, 0, ask->path);
  } else if (rmdir(ask->path) < 0) {
    file_fail(errno, ask->path);
  }
}
