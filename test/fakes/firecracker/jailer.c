/*
 * A stand-in for the jailer: its arguments, its layout, a chroot and another user, and of its
 * devices the one for taps. It makes no namespace: the stand-in for Firecracker needs none.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

struct order {
  const char *id, *exec_file, *uid, *gid, *base;
};

static _Noreturn void fail(const char *what) {
  fprintf(stderr, "Error: %s: %s\n", what, strerror(errno));
  exit(1);
}

static void limit(const char *text) {
  unsigned long long value;
  bool files = sscanf(text, "no-file=%llu", &value) == 1;
  if (!files && sscanf(text, "fsize=%llu", &value) != 1) fail(text);
  struct rlimit r = {value, value};
  if (setrlimit(files ? RLIMIT_NOFILE : RLIMIT_FSIZE, &r) < 0) fail(text);
}

/* Returns where the arguments of the program begin. */
static int read_args(int argc, char **argv, struct order *o) {
  for (int i = 1; i < argc; i += 2) {
    if (strcmp(argv[i], "--") == 0) return i + 1;
    if (i + 1 == argc) break;
    const char *name = argv[i];
    const char *value = argv[i + 1];
    if (strcmp(name, "--id") == 0) o->id = value;
    else if (strcmp(name, "--exec-file") == 0) o->exec_file = value;
    else if (strcmp(name, "--uid") == 0) o->uid = value;
    else if (strcmp(name, "--gid") == 0) o->gid = value;
    else if (strcmp(name, "--chroot-base-dir") == 0) o->base = value;
    else if (strcmp(name, "--resource-limit") == 0) limit(value);
    else if (strcmp(name, "--cgroup-version") && strcmp(name, "--parent-cgroup") &&
             strcmp(name, "--netns")) break;
  }
  fprintf(stderr, "Arguments parsing error\n");
  exit(1);
}

static void make_dirs(char *path) {
  for (char *at = path + 1; (at = strchr(at, '/')); at++) {
    *at = 0;
    if (mkdir(path, 0700) < 0 && errno != EEXIST) fail(path);
    *at = '/';
  }
  if (mkdir(path, 0700) < 0 && errno != EEXIST) fail(path);
}

static void copy(const char *from, const char *to, mode_t mode) {
  int in = open(from, O_RDONLY | O_CLOEXEC);
  if (in < 0) fail(from);
  int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  if (out < 0) fail(to);
  while (sendfile(out, in, NULL, 1 << 20) > 0) continue;
  close(in);
  close(out);
}

/* In the new root. */
static void make_tun(uid_t uid, gid_t gid) {
  static const char path[] = "/dev/net/tun";
  char dir[] = "/dev/net";
  make_dirs(dir);
  if (chown("/dev", uid, gid) < 0 || chown("/dev/net", uid, gid) < 0) fail("/dev/net");
  if (mknod(path, S_IFCHR | 0600, makedev(10, 200)) < 0 || chown(path, uid, gid) < 0) fail(path);
}

int main(int argc, char **argv) {
  struct order o = {0};
  if (argc == 2 && strcmp(argv[1], "--version") == 0) {
    printf("Jailer v1.16.1\n");
    return 0;
  }
  int rest = read_args(argc, argv, &o);
  if (!o.id || !o.exec_file || !o.uid || !o.gid || !o.base) fail("an argument is missing");
  const char *slash = strrchr(o.exec_file, '/');
  const char *name = slash ? slash + 1 : o.exec_file;
  char root[400];
  char path[500];
  char conf[500];
  snprintf(root, sizeof root, "%s/%s/%s/root", o.base, name, o.id);
  make_dirs(root);
  snprintf(path, sizeof path, "%s/%s", root, name);
  copy(o.exec_file, path, 0755);
  snprintf(conf, sizeof conf, "%.*s/fake.conf", (int)(name - 1 - o.exec_file), o.exec_file);
  snprintf(path, sizeof path, "%s/fake.conf", root);
  if (access(conf, R_OK) == 0) copy(conf, path, 0644);
  gid_t gid = (gid_t)atol(o.gid);
  uid_t uid = (uid_t)atol(o.uid);
  if (chown(root, uid, gid) < 0) fail("chown");
  if (chdir(root) < 0 || chroot(".") < 0 || chdir("/") < 0) fail("chroot");
  make_tun(uid, gid);
  if (setgroups(0, NULL) < 0 || setgid(gid) < 0 || setuid(uid) < 0) fail("setuid");
  snprintf(path, sizeof path, "/%s", name);
  argv[--rest] = path;
  execve(path, argv + rest, (char *[]){NULL});
  fail("execve");
}
