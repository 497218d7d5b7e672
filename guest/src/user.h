/* Accounts of the image, read from /etc/passwd and /etc/group: a static libc has no NSS. */
#ifndef FORKD_USER_H
#define FORKD_USER_H

#include <stdbool.h>
#include <sys/types.h>

#include "bounds.h"

struct user {
  uid_t uid;
  gid_t gid;
  gid_t groups[GROUPS_MAX];
  int group_count;
  char home[256];
};

/* "name", "uid", "name:group" or "uid:gid"; NULL or "" is root. A number needs no entry: its group
 * is then 0 and its home "/". False when a name is not known or a number is out of range. */
bool user_resolve(const char *spec, struct user *out);

#endif
