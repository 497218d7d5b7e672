/* Starts a program: own session, clean signals, given descriptors, user, directory. */
#ifndef FORKD_SPAWN_H
#define FORKD_SPAWN_H

#include <stdbool.h>
#include <sys/types.h>

#include "cells.h"
#include "env.h"
#include "pty.h"
#include "user.h"

#define SPAWN_FDS 4

enum spawn_stage { SPAWN_DONE, SPAWN_FORK, SPAWN_FDS_STAGE, SPAWN_USER, SPAWN_CWD, SPAWN_EXEC };

struct spawn {
  char *const *argv;
  const struct env *env;
  const char *cwd;
  const struct user *user;
  enum cell cell;
  bool tty;             /* descriptor 0 is a terminal, to be the controlling one */
  struct pty_size size; /* of that terminal */
  int fds[SPAWN_FDS]; /* become 0..3 of the child; -1: /dev/null for 0..2, closed for 3 */
};

struct spawn_error {
  enum spawn_stage stage;
  int err; /* errno */
};

/* Returns the pid, which is also its process group and session, or -1 with `error` filled. The
 * caller keeps its descriptors. Looks argv[0] up in PATH of `env` when it has no slash. */
pid_t spawn(const struct spawn *what, struct spawn_error *error);
/* The protocol's error code for a failed spawn, and a sentence about it. */
const char *spawn_error_code(const struct spawn_error *error);
void spawn_error_text(const struct spawn_error *error, const struct spawn *what, char *out,
                      size_t max);

#endif
