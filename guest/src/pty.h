/* A terminal of a command's own (pty(7)): the agent holds the master, the command the other end. */
#ifndef FORKD_PTY_H
#define FORKD_PTY_H

#include <stdbool.h>
#include <sys/types.h>

struct pty_size {
  unsigned short rows;
  unsigned short cols;
};

/* The end of file of a terminal's line discipline (VEOF, termios(3)). */
#define PTY_END_OF_INPUT 4

/* Opens a pair; the other end belongs to `owner`. False with errno. */
bool pty_open(struct pty_size size, uid_t owner, int *master, int *other);
bool pty_resize(int master, struct pty_size size);
/* The group in the foreground of the terminal; 0 when there is none. */
pid_t pty_foreground(int master);

#endif
