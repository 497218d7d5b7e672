#include "pty.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

/* From linux/tty ioctls; older headers of the libc lack it. */
#ifndef TIOCGPTPEER
#define TIOCGPTPEER 0x5441
#endif

static bool open_other(int master, uid_t owner, int *other) {
  int unlocked = 0;
  if (ioctl(master, TIOCSPTLCK, &unlocked) < 0) return false;
  /* By the master, not by a path that the guest may have changed. */
  *other = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (*other < 0) return false;
  if (geteuid() == 0 && fchown(*other, owner, (gid_t)-1) == 0) fchmod(*other, 0620);
  return true;
}

bool pty_open(struct pty_size size, uid_t owner, int *master, int *other) {
  *master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (*master < 0) return false;
  if (open_other(*master, owner, other)) {
    pty_resize(*master, size);
    return true;
  }
  int why = errno;
  close(*master);
  errno = why;
  return false;
}

bool pty_resize(int master, struct pty_size size) {
  struct winsize window = {.ws_row = size.rows, .ws_col = size.cols};
  return ioctl(master, TIOCSWINSZ, &window) == 0;
}

pid_t pty_foreground(int master) {
  pid_t group = 0;
  return ioctl(master, TIOCGPGRP, &group) == 0 ? group : 0;
}
