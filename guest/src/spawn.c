#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "buf.h"

struct child {
  const struct spawn *what;
  const char *path;  /* of the environment */
  char **sh_argv;    /* for a script without "#!": {"/bin/sh", file, args...} */
  volatile enum spawn_stage stage;
  volatile int err;
};

static void __attribute__((noreturn)) fail(struct child *c, enum spawn_stage stage) {
  c->err = errno;
  c->stage = stage;
  _exit(127);
}

/* A raw call, because the libc keeps two signals for itself. All zero is SIG_DFL. */
static void default_signals(void) {
  static const uint64_t action[4];
  for (int i = 1; i < NSIG; i++) syscall(SYS_rt_sigaction, i, action, NULL, 8);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Through high numbers first, so that no target is overwritten before it is used. */
static void place_fds(struct child *c) {
  int high[SPAWN_FDS];
  for (int i = 0; i < SPAWN_FDS; i++) {
    int fd = c->what->fds[i];
    if (fd < 0 && i < 3) fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    high[i] = -1;
    if (fd < 0 && i < 3) fail(c, SPAWN_FDS_STAGE);
    if (fd < 0) continue;
    high[i] = fcntl(fd, F_DUPFD_CLOEXEC, 16);
    if (high[i] < 0) fail(c, SPAWN_FDS_STAGE);
  }
  for (int i = 0; i < SPAWN_FDS; i++) {
    if (high[i] >= 0 && dup2(high[i], i) < 0) fail(c, SPAWN_FDS_STAGE);
  }
  /* All others close on exec anyway, but for what this process may have inherited itself. */
  syscall(SYS_close_range, c->what->fds[3] >= 0 ? 4 : 3, ~0U, 0);
}

/* Raw calls: the libc's own change every thread, and this one shares memory with its parent. */
static void become(struct child *c) {
  const struct user *u = c->what->user;
  if (geteuid() != 0) {
    if (u->uid != geteuid()) {
      errno = EPERM;
      fail(c, SPAWN_USER);
    }
    return;
  }
  if (syscall(SYS_setgroups, u->group_count, u->groups) < 0) fail(c, SPAWN_USER);
  if (syscall(SYS_setresgid, u->gid, u->gid, u->gid) < 0) fail(c, SPAWN_USER);
  if (syscall(SYS_setresuid, u->uid, u->uid, u->uid) < 0) fail(c, SPAWN_USER);
}

static void try_exec(struct child *c, const char *file) {
  char *const *env = c->what->env->list;
  execve(file, c->what->argv, env);
  if (errno != ENOEXEC) return;
  c->sh_argv[1] = (char *)file;
  execve("/bin/sh", c->sh_argv, env);
  errno = ENOEXEC;
}

static void find_and_exec(struct child *c) {
  const char *name = c->what->argv[0];
  if (strchr(name, '/')) {
    try_exec(c, name);
    return;
  }
  char file[4096];
  int err = ENOENT;
  for (const char *dir = c->path; dir; dir = strchr(dir, ':')) {
    if (*dir == ':') dir++;
    int len = (int)strcspn(dir, ":");
    int n = len ? snprintf(file, sizeof file, "%.*s/%s", len, dir, name)
                : snprintf(file, sizeof file, "./%s", name);
    if (n < 0 || n >= (int)sizeof file) continue;
    try_exec(c, file);
    /* A file that may not be run is a better answer than one that is not there. */
    if (errno != ENOENT && errno != ENOTDIR && err == ENOENT) err = errno;
  }
  errno = err;
}

static void __attribute__((noreturn)) run_child(struct child *c) {
  setsid();
  default_signals();
  place_fds(c);
  if (c->what->tty && ioctl(0, TIOCSCTTY, 0) < 0) fail(c, SPAWN_FDS_STAGE);
  umask(022);
  become(c);
  if (chdir(c->what->cwd) < 0) fail(c, SPAWN_CWD);
  find_and_exec(c);
  fail(c, SPAWN_EXEC);
}

/* The child borrows this process's memory until it runs its program, which costs no page copies. */
static __attribute__((noinline)) pid_t start_anywhere(struct child *c) {
  pid_t pid = vfork();
  if (pid == 0) run_child(c);
  return pid;
}

/* As vfork, but born in a cgroup: moving a process later stops the world for milliseconds. The call
 * is made in place, because the child must not return from the frame that both use. */
static __attribute__((noinline)) long start_in(struct child *c, int cgroup) {
  struct clone_args args = {
      .flags = CLONE_VM | CLONE_VFORK | CLONE_INTO_CGROUP,
      .exit_signal = SIGCHLD,
      .cgroup = (uint64_t)cgroup,
  };
  long result;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "0"((long)SYS_clone3), "D"(&args), "S"(sizeof args)
                   : "rcx", "r11", "memory");
  if (result == 0) run_child(c);
  return result;
}

#if defined(__has_feature)
#define HAS_ASAN __has_feature(address_sanitizer)
#elif defined(__SANITIZE_ADDRESS__)
#define HAS_ASAN 1
#else
#define HAS_ASAN 0
#endif
#if HAS_ASAN
#include <sanitizer/asan_interface.h>
/* The frames of the child, below ours, never returned and left their marks. */
static void forget_frames_of_child(void) {
  enum { DEPTH = 65536 };
  char *here = __builtin_frame_address(0);
  __asan_unpoison_memory_region(here - DEPTH, DEPTH);
}
#else
static void forget_frames_of_child(void) {}
#endif

static pid_t start(struct child *c) {
  int cgroup = cell_fd(c->what->cell);
  if (cgroup < 0) return start_anywhere(c);
  long pid = start_in(c, cgroup);
  forget_frames_of_child();
  if (pid > 0) return (pid_t)pid;
  errno = (int)-pid;
  /* Too many processes, or too little memory, is no reason to start one out of its cell. */
  if (errno == EAGAIN || errno == ENOMEM) return -1;
  cells_give_up(strerror(errno));
  return start_anywhere(c);
}

pid_t spawn(const struct spawn *what, struct spawn_error *error) {
  size_t argc = 0;
  if (cell_is_frozen(what->cell)) {
    /* It would not run, and this process would wait for it for ever. */
    *error = (struct spawn_error){SPAWN_FORK, EAGAIN};
    return -1;
  }
  while (what->argv[argc]) argc++;
  const char *path = env_get(what->env, "PATH");
  struct child c = {.what = what, .path = path ? path : PATH_DEFAULT, .stage = SPAWN_DONE};
  c.sh_argv = xalloc((argc + 2) * sizeof *c.sh_argv);
  c.sh_argv[0] = "/bin/sh";
  for (size_t i = 1; i < argc; i++) c.sh_argv[i + 1] = what->argv[i];

  sigset_t all;
  sigset_t old;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, &old);
  pid_t pid = start(&c);
  int err = errno;
  sigprocmask(SIG_SETMASK, &old, NULL);
  free(c.sh_argv);
  if (pid < 0) {
    *error = (struct spawn_error){SPAWN_FORK, err};
    return -1;
  }
  if (c.stage != SPAWN_DONE) {
    /* It is already dead; the loop reaps it as an orphan. */
    *error = (struct spawn_error){c.stage, c.err};
    return -1;
  }
  return pid;
}

const char *spawn_error_code(const struct spawn_error *error) {
  if (error->stage == SPAWN_USER) return "bad_user";
  if (error->stage == SPAWN_CWD) return "bad_cwd";
  if (error->stage == SPAWN_EXEC && (error->err == ENOENT || error->err == ENOTDIR)) {
    return "not_found";
  }
  return "spawn_failed";
}

void spawn_error_text(const struct spawn_error *error, const struct spawn *what, char *out,
                      size_t max) {
  const char *reason = strerror(error->err);
  switch (error->stage) {
    case SPAWN_USER: snprintf(out, max, "cannot become uid %u: %s", what->user->uid, reason); break;
    case SPAWN_CWD: snprintf(out, max, "cannot enter %s: %s", what->cwd, reason); break;
    case SPAWN_EXEC: snprintf(out, max, "cannot run %.200s: %s", what->argv[0], reason); break;
    default: snprintf(out, max, "cannot start a process: %s", reason);
  }
}
