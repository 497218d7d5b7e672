/* One action on the guest's files: what it is asked, and how it answers or fails. */
#ifndef FORKD_FILE_ASK_H
#define FORKD_FILE_ASK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

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

#endif
