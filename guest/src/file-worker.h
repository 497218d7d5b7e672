/* What one action on the guest's files does, in a process of its own (op-file.c starts it). */
#ifndef FORKD_FILE_WORKER_H
#define FORKD_FILE_WORKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

/* The word that makes the agent's program a worker instead of an agent. */
#define FILE_WORKER_WORD "--file"

/* One action, as the words after FILE_WORKER_WORD, in this order. */
struct file_ask {
  const char *action;
  const char *path;
  const char *to;     /* of a rename; "" otherwise */
  uint64_t offset;    /* of a read */
  uint64_t length;    /* bytes of a read; entries of a list */
  int mode;           /* of what is made; -1: keep what is there, else the usual */
  const char *flags;  /* letters: FILE_FLAG_... */
};

#define FILE_FLAG_PARENTS 'p'
#define FILE_FLAG_EXCLUSIVE 'x'
#define FILE_FLAG_RECURSIVE 'r'
#define FILE_FLAG_FOLLOW 'f'

/* Does what the words say and returns the exit code: 0, or 1 with "CODE MESSAGE" on standard error.
 * Standard input ends early when nobody wants the result any more. */
int file_worker(int argc, char **argv);

bool file_asks(const struct file_ask *ask, char flag);
/* Ends the process with the protocol's code for an errno, and a sentence that begins with `what`. */
void __attribute__((noreturn)) file_fail(int err, const char *what);
void __attribute__((noreturn)) file_fail_as(const char *code, const char *what, const char *why);
/* Writes all or ends the process. */
void file_put(const void *data, size_t len);
/* One record of standard output (docs/guest-protocol.md); `name` and `target` may be "". */
void file_put_record(const struct stat *st, bool exact, const char *name, const char *target);
/* Whether a file is of the kernel's making: without a length to rely on, not to be replaced. */
bool file_is_kernels(int fd);

void file_write_action(const struct file_ask *ask);
void file_remove_action(const struct file_ask *ask);

#endif
