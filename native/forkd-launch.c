/*
 * forkd-launch: puts a process into the state that a VMM needs, then becomes the VMM.
 *
 * Node can start a program, but cannot turn off transparent huge pages for it, tie it to its
 * parent's life, or close what it inherited. This does, in the child, and then execs: no thread of
 * the daemon forks with locks held, and nothing of this program stays.
 *
 *   forkd-launch [--no-thp] [--die-with-parent PID] [--oom-score-adj N] [--cgroup PROCS_FILE]...
 *                [--bind FILE NAME]... [--netns FILE | --own-netns] [--tap NAME UID]
 *                [--keep-fds N] -- ARGV...
 *
 * --cgroup joins the control group of that cgroup.procs file before anything else of the program
 * happens, so no page and no thread of it is ever outside its limits. It may be given once for each
 * hierarchy of cgroup v1. A group that cannot be joined is an error: a limit that was promised is
 * in force or the program does not run.
 *
 * --bind shows the program a file under another name too, read-only, in a mount namespace of its
 * own: nobody else sees it, and it goes with the program. NAME must not exist; an empty file is
 * made there. Unlike a hard link it leaves the file's ctime alone and may lead to another file
 * system.
 *
 * --netns enters a network namespace by its file, such as /run/netns/NAME: the program has that
 * network and no other, and a tap of it is the one that it opens by name. --own-netns makes one
 * with nothing in it, which goes with the program.
 *
 * --tap lets a user open the tap device NAME of that network (TUNSETOWNER), and makes it when there
 * is none: whom a jail makes of us has no right to any device of a network but its own.
 *
 * --die-with-parent takes the expected parent's pid: had it died before the request was made, this
 * exits at once rather than outlive it. --keep-fds closes every descriptor from N on.
 *
 * Exit: 126 when ARGV cannot be executed, 127 when it is not found, 125 for anything else.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static _Noreturn void fail(const char *what) {
  fprintf(stderr, "forkd-launch: %s: %s\n", what, strerror(errno));
  exit(125);
}

static long parse_number(const char *text, long min, long max) {
  char *end = NULL;
  errno = 0;
  long value = strtol(text, &end, 10);
  if (errno != 0 || end == text || *end != '\0' || value < min || value > max) {
    errno = EINVAL;
    fail(text);
  }
  return value;
}

static void write_oom_score(const char *text) {
  parse_number(text, -1000, 1000);
  int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  /* Lowering the score needs a capability; a VMM without it still runs. */
  if (fd < 0 || write(fd, text, strlen(text)) < 0) perror("forkd-launch: oom_score_adj");
  if (fd >= 0) close(fd);
}

/* Zero stands for the writer itself, in whatever pid namespace the file is looked at from. */
static void join_cgroup(const char *procs_file) {
  int fd = open(procs_file, O_WRONLY | O_CLOEXEC);
  if (fd < 0 || write(fd, "0", 1) != 1) fail(procs_file);
  close(fd);
}

static void bind_file(const char *file, const char *name) {
  static int is_private;
  if (!is_private) {
    if (unshare(CLONE_NEWNS) != 0) fail("a mount namespace");
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) fail("private mounts");
    is_private = 1;
  }
  int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd < 0) fail(name);
  close(fd);
  unsigned long safe = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;
  if (mount(file, name, NULL, MS_BIND, NULL) != 0) fail(file);
  if (mount(NULL, name, NULL, MS_REMOUNT | MS_BIND | safe, NULL) != 0) fail(name);
}

static void enter_netns(const char *file) {
  int fd = open(file, O_RDONLY | O_CLOEXEC);
  if (fd < 0 || setns(fd, CLONE_NEWNET) != 0) fail(file);
  close(fd);
}

static void own_netns(void) {
  if (unshare(CLONE_NEWNET) != 0) fail("a network namespace");
}

/* It stays when this closes it; the flags are those that a VMM opens it with. */
static void give_tap(const char *name, const char *user) {
  struct ifreq tap = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
  long uid = parse_number(user, 0, INT32_MAX);
  if (strlen(name) >= sizeof tap.ifr_name) {
    errno = ENAMETOOLONG;
    fail(name);
  }
  strcpy(tap.ifr_name, name);
  int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
  if (fd < 0) fail("/dev/net/tun");
  if (ioctl(fd, TUNSETIFF, &tap) != 0) fail(name);
  if (ioctl(fd, TUNSETOWNER, uid) != 0 || ioctl(fd, TUNSETPERSIST, 1) != 0) fail(name);
  close(fd);
}

static void die_with_parent(const char *text) {
  pid_t parent = (pid_t)parse_number(text, 1, 1L << 22);
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) fail("PR_SET_PDEATHSIG");
  if (getppid() != parent) {
    fprintf(stderr, "forkd-launch: the parent %d is gone\n", (int)parent);
    exit(125);
  }
}

static const char *value_of(int argc, char **argv, int *at) {
  if (++*at >= argc) {
    errno = EINVAL;
    fail(argv[argc - 1]);
  }
  return argv[*at];
}

int main(int argc, char **argv) {
  int at = 1;
  for (; at < argc && strcmp(argv[at], "--") != 0; at++) {
    if (strcmp(argv[at], "--no-thp") == 0) {
      if (prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) != 0) perror("forkd-launch: PR_SET_THP_DISABLE");
    } else if (strcmp(argv[at], "--die-with-parent") == 0) {
      die_with_parent(value_of(argc, argv, &at));
    } else if (strcmp(argv[at], "--oom-score-adj") == 0) {
      write_oom_score(value_of(argc, argv, &at));
    } else if (strcmp(argv[at], "--cgroup") == 0) {
      join_cgroup(value_of(argc, argv, &at));
    } else if (strcmp(argv[at], "--bind") == 0) {
      const char *file = value_of(argc, argv, &at);
      bind_file(file, value_of(argc, argv, &at));
    } else if (strcmp(argv[at], "--netns") == 0) {
      enter_netns(value_of(argc, argv, &at));
    } else if (strcmp(argv[at], "--own-netns") == 0) {
      own_netns();
    } else if (strcmp(argv[at], "--tap") == 0) {
      const char *name = value_of(argc, argv, &at);
      give_tap(name, value_of(argc, argv, &at));
    } else if (strcmp(argv[at], "--keep-fds") == 0) {
      long first = parse_number(value_of(argc, argv, &at), 3, 1024);
      if (syscall(SYS_close_range, (unsigned)first, ~0U, 0) != 0) fail("close_range");
    } else {
      errno = EINVAL;
      fail(argv[at]);
    }
  }
  if (at + 1 >= argc) {
    errno = EINVAL;
    fail("no program after --");
  }
  execvp(argv[at + 1], argv + at + 1);
  int code = errno == ENOENT ? 127 : 126;
  fprintf(stderr, "forkd-launch: %s: %s\n", argv[at + 1], strerror(errno));
  return code;
}
