#include "file-worker.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bounds.h"
#include "file-change.h"
#include "files.h"

#define ASK_WORDS 7

/* Whoever asked has gone: its end of standard input is closed. */
static bool is_given_up(void) {
  struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
  return poll(&in, 1, 0) > 0 && (in.revents & (POLLHUP | POLLERR));
}

static int open_regular(const struct file_ask *ask, struct stat *st) {
  /* Not to wait for the other end of a pipe. */
  int fd = open(ask->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0 && errno == ENXIO) file_fail_as("not_a_file", ask->path, "a socket or a device");
  if (fd < 0 || fstat(fd, st) < 0) file_fail(errno, ask->path);
  if (S_ISDIR(st->st_mode)) file_fail(EISDIR, ask->path);
  if (!S_ISREG(st->st_mode)) file_fail_as("not_a_file", ask->path, "not a regular file");
  return fd;
}

/* The record of the file, then its bytes: as many as the record promised, or an error. */
static void read_action(const struct file_ask *ask) {
  static uint8_t chunk[FRAME_PAYLOAD_BYTES_MAX];
  struct stat st;
  int fd = open_regular(ask, &st);
  bool exact = !file_is_kernels(fd);
  uint64_t size = (uint64_t)st.st_size;
  uint64_t left = ask->length;
  if (exact && left > size - (ask->offset < size ? ask->offset : size)) {
    left = size - (ask->offset < size ? ask->offset : size);
  }
  if (ask->offset && lseek(fd, (off_t)ask->offset, SEEK_SET) < 0) file_fail(errno, ask->path);
  file_put_record(&st, exact, "", "");
  while (left > 0 && !is_given_up()) {
    ssize_t n = read(fd, chunk, left < sizeof chunk ? (size_t)left : sizeof chunk);
    if (n < 0 && errno == EINTR) continue;
    /* Some files of the kernel have nothing to say now. */
    if (n < 0 && errno == EAGAIN && !exact) break;
    if (n < 0) file_fail(errno, ask->path);
    if (n == 0 && exact) file_fail_as("file_failed", ask->path, "it became shorter meanwhile");
    if (n == 0) break;
    file_put(chunk, (size_t)n);
    left -= (uint64_t)n;
  }
}

static const char *link_target(int dir, const char *name, const struct stat *st) {
  static char target[PATH_BYTES_MAX];
  ssize_t n = S_ISLNK(st->st_mode) ? readlinkat(dir, name, target, sizeof target - 1) : 0;
  target[n > 0 ? n : 0] = 0;
  return target;
}

static void stat_action(const struct file_ask *ask) {
  struct stat st;
  int flags = file_asks(ask, FILE_FLAG_FOLLOW) ? 0 : AT_SYMLINK_NOFOLLOW;
  if (fstatat(AT_FDCWD, ask->path, &st, flags) < 0) file_fail(errno, ask->path);
  file_put_record(&st, true, "", link_target(AT_FDCWD, ask->path, &st));
}

/* A record for each entry, in the directory's own order, at most `length`. */
static void list_action(const struct file_ask *ask) {
  int fd = open(ask->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *dir = fd < 0 ? NULL : fdopendir(fd);
  if (!dir) file_fail(errno, ask->path);
  uint64_t left = ask->length;
  for (struct dirent *e; left > 0 && (e = readdir(dir));) {
    struct stat st;
    if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
    /* It may have been removed meanwhile. */
    if (fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0) continue;
    file_put_record(&st, true, e->d_name, link_target(fd, e->d_name, &st));
    left--;
  }
  closedir(dir);
}

static void make_directory(const char *path, int mode, bool may_exist) {
  struct stat st;
  if (mkdir(path, mode < 0 ? 0777 : (mode_t)mode) == 0) {
    /* The umask takes no part of a mode that was asked for. */
    if (mode >= 0 && chmod(path, (mode_t)mode) < 0) file_fail(errno, path);
    return;
  }
  int err = errno;
  if (err != EEXIST || !may_exist) file_fail(err, path);
  if (stat(path, &st) < 0) file_fail(errno, path);
  if (!S_ISDIR(st.st_mode)) file_fail(ENOTDIR, path);
}

/* The directories above a path, as far as they are missing. */
static void make_parents(const char *path) {
  char text[PATH_BYTES_MAX];
  snprintf(text, sizeof text, "%s", path);
  for (char *at = text + strspn(text, "/"); (at = strchr(at, '/')); at++) {
    *at = 0;
    make_directory(text, -1, true);
    *at = '/';
  }
}

static void mkdir_action(const struct file_ask *ask) {
  bool parents = file_asks(ask, FILE_FLAG_PARENTS);
  if (parents) make_parents(ask->path);
  make_directory(ask->path, ask->mode, parents);
}

static void rename_action(const struct file_ask *ask) {
  if (rename(ask->path, ask->to) < 0) file_fail(errno, ask->path);
}

static void write_action(const struct file_ask *ask) {
  if (file_asks(ask, FILE_FLAG_PARENTS)) make_parents(ask->path);
  file_write_action(ask);
}

static const struct {
  const char *name;
  void (*run)(const struct file_ask *ask);
} actions[] = {
    {"stat", stat_action},     {"read", read_action},     {"write", write_action},
    {"list", list_action},     {"mkdir", mkdir_action},   {"remove", file_remove_action},
    {"rename", rename_action},
};

int file_worker(int argc, char **argv) {
  if (argc != ASK_WORDS) return 2;
  /* A reader that is gone shows as an error of the write. */
  signal(SIGPIPE, SIG_IGN);
  struct file_ask ask = {
      .action = argv[0],
      .path = argv[1],
      .to = argv[2],
      .offset = strtoull(argv[3], NULL, 10),
      .length = strtoull(argv[4], NULL, 10),
      .mode = atoi(argv[5]),
      .flags = argv[6],
  };
  for (size_t i = 0; i < sizeof actions / sizeof *actions; i++) {
    if (strcmp(ask.action, actions[i].name) != 0) continue;
    actions[i].run(&ask);
    return 0;
  }
  file_fail_as("bad_request", ask.action, "there is no such action");
}
