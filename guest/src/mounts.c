#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "boot.h"
#include "log.h"

#define LOWER "/forkd/lower"
#define UPPER "/forkd/upper"
#define ROOT "/forkd/root"

static void make_dir(const char *path, mode_t mode) {
  if (mkdir(path, mode) < 0 && errno != EEXIST) log_fatal("mkdir %s: %s", path, strerror(errno));
}

static void must(int result, const char *what) {
  if (result < 0) log_fatal("%s: %s", what, strerror(errno));
}

static void mount_lower(const char *device) {
  static const struct {
    const char *type;
    const char *data;
  } kinds[] = {{"ext4", "noload"}, {"erofs", ""}, {"squashfs", ""}};
  char path[128];
  snprintf(path, sizeof path, "/dev/%s", device);
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    if (mount(path, LOWER, kinds[i].type, MS_RDONLY | MS_NOATIME, kinds[i].data) == 0) return;
  }
  log_fatal("%s is neither ext4, erofs nor squashfs: %s", path, strerror(errno));
}

static void mount_upper(const struct boot_options *options) {
  if (*options->scratch) {
    char path[128];
    snprintf(path, sizeof path, "/dev/%s", options->scratch);
    device_wait(options->scratch);
    must(mount(path, UPPER, "ext4", MS_NOATIME, ""), "mount the scratch disk");
    return;
  }
  char data[64] = "mode=0755";
  if (options->upper_mib) snprintf(data, sizeof data, "mode=0755,size=%luM", options->upper_mib);
  must(mount("upper", UPPER, "tmpfs", MS_NOATIME, data), "mount the upper layer");
}

static void copy_file(const char *from, const char *to) {
  static char chunk[65536];
  int in = open(from, O_RDONLY | O_CLOEXEC);
  int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (in < 0 || out < 0) log_fatal("copy %s: %s", from, strerror(errno));
  ssize_t n;
  while ((n = read(in, chunk, sizeof chunk)) > 0) {
    if (write(out, chunk, (size_t)n) != n) log_fatal("copy %s: %s", from, strerror(errno));
  }
  close(in);
  close(out);
}

/* The Node runtime's add-on (openssl-reseed.S). */
extern const char openssl_reseed_start[];
extern const char openssl_reseed_end[];

static void write_addon(void) {
  size_t len = (size_t)(openssl_reseed_end - openssl_reseed_start);
  int fd = open(ROOT "/run/forkd/runtime/openssl-reseed.node",
                O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0 || write(fd, openssl_reseed_start, len) != (ssize_t)len) {
    log_line("the Node add-on was not written: %s", strerror(errno));
  }
  if (fd >= 0) close(fd);
}

/* The image has no runtimes of ours: they ride in the initramfs and live on /run. */
static void copy_runtimes(void) {
  make_dir(ROOT "/run/forkd", 0755);
  make_dir(ROOT "/run/forkd/runtime", 0755);
  write_addon();
  DIR *dir = opendir("/forkd/runtime");
  if (!dir) return;
  for (struct dirent *e; (e = readdir(dir));) {
    if (e->d_name[0] == '.') continue;
    char from[512];
    char to[512];
    snprintf(from, sizeof from, "/forkd/runtime/%.255s", e->d_name);
    snprintf(to, sizeof to, ROOT "/run/forkd/runtime/%.255s", e->d_name);
    copy_file(from, to);
    unlink(from);
  }
  closedir(dir);
}

/* A path of the new root as a directory; a symbolic link there must not lead out of it, so an
 * absolute one is replaced (on the upper layer) by a directory. */
static void mount_point(const char *path, mode_t mode) {
  struct stat st;
  if (lstat(path, &st) == 0 && !S_ISDIR(st.st_mode)) unlink(path);
  make_dir(path, mode);
}

static void mount_inside(void) {
  mount_point(ROOT "/proc", 0755);
  mount_point(ROOT "/sys", 0755);
  mount_point(ROOT "/dev", 0755);
  mount_point(ROOT "/run", 0755);
  mount_point(ROOT "/tmp", 01777);
  chmod(ROOT "/tmp", 01777);
  must(mount("/proc", ROOT "/proc", NULL, MS_MOVE, NULL), "move /proc");
  must(mount("/sys", ROOT "/sys", NULL, MS_MOVE, NULL), "move /sys");
  must(mount("/dev", ROOT "/dev", NULL, MS_MOVE, NULL), "move /dev");
  must(mount("run", ROOT "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755"), "mount /run");
  make_dir(ROOT "/dev/pts", 0755);
  make_dir(ROOT "/dev/shm", 01777);
  if (mount("devpts", ROOT "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC,
            "mode=0620,gid=5,ptmxmode=0666") < 0) {
    log_line("mount /dev/pts: %s", strerror(errno));
  }
  if (mount("shm", ROOT "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777") < 0) {
    log_line("mount /dev/shm: %s", strerror(errno));
  }
  if (mount("cgroup2", ROOT "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC,
            NULL) < 0) {
    log_line("mount /sys/fs/cgroup: %s", strerror(errno));
  }
  static const char *const links[][2] = {{"/proc/self/fd", ROOT "/dev/fd"},
                                         {"/proc/self/fd/0", ROOT "/dev/stdin"},
                                         {"/proc/self/fd/1", ROOT "/dev/stdout"},
                                         {"/proc/self/fd/2", ROOT "/dev/stderr"}};
  for (size_t i = 0; i < 4; i++) {
    if (symlink(links[i][0], links[i][1]) < 0 && errno != EEXIST) {
      log_line("link %s: %s", links[i][1], strerror(errno));
    }
  }
}

/* Moves what `identity` writes to the upper layer now, so that no fork has to. */
static void copy_up_identity(void) {
  static const char *const files[] = {ROOT "/etc/machine-id", ROOT "/etc/hostname",
                                      ROOT "/run/forkd/generation"};
  mkdir(ROOT "/etc", 0755);
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    int fd = open(files[i], O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644);
    if (fd >= 0) close(fd);
  }
}

void mounts_enter_root(const struct boot_options *options) {
  make_dir("/forkd", 0755);
  make_dir(LOWER, 0755);
  make_dir(UPPER, 0755);
  make_dir(ROOT, 0755);
  device_wait(options->root);
  log_line("mount the root image /dev/%s", options->root);
  mount_lower(options->root);
  mount_upper(options);
  make_dir(UPPER "/up", 0755);
  make_dir(UPPER "/work", 0755);
  log_line("enter the overlay");
  must(mount("overlay", ROOT, "overlay", MS_NOATIME,
             "lowerdir=" LOWER ",upperdir=" UPPER "/up,workdir=" UPPER "/work"),
       "mount the overlay");
  mount_inside();
  copy_runtimes();
  copy_up_identity();
  must(chdir(ROOT), "enter the overlay");
  must(mount(".", "/", NULL, MS_MOVE, NULL), "move the overlay to /");
  must(chroot("."), "chroot");
  must(chdir("/"), "enter /");
}
