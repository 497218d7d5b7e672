/*
 * forkd-notify: tells systemd of a service's state, for a daemon whose runtime has no datagram
 * sockets of the local kind (sd_notify(3)).
 *
 * Each line of standard input becomes one datagram to $NOTIFY_SOCKET; a tab in it becomes a line
 * break, so that one datagram may carry several assignments. It ends with its input. As root it
 * speaks in its parent's name, so that NotifyAccess=main, which takes messages of the main process
 * alone, takes these.
 *
 * Exit: 0 when the input ended, 1 when there is no socket to speak to.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* The daemon's own lines are far below this; a longer one is cut, never split in two. */
enum { line_max = 4096 };

struct target {
  struct sockaddr_un address;
  socklen_t size;
};

/* A path, or "@NAME" in the abstract name space (unix(7)). */
static int parse_target(const char *name, struct target *target) {
  size_t length = name == NULL ? 0 : strlen(name);
  if (length < 2 || length >= sizeof target->address.sun_path) return -1;
  if (name[0] != '/' && name[0] != '@') return -1;
  memset(target, 0, sizeof *target);
  target->address.sun_family = AF_UNIX;
  memcpy(target->address.sun_path, name, length);
  size_t end = name[0] == '/' ? length + 1 : length;
  if (name[0] == '@') target->address.sun_path[0] = '\0';
  target->size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + end);
  return 0;
}

/* Without credentials when the kernel does not let us speak for the parent. */
static void tell(int fd, struct target *target, pid_t parent, char *text, size_t length) {
  union {
    char bytes[CMSG_SPACE(sizeof(struct ucred))];
    struct cmsghdr align;
  } control = {0};
  struct iovec data = {text, length};
  struct msghdr message = {.msg_name = &target->address,
                           .msg_namelen = target->size,
                           .msg_iov = &data,
                           .msg_iovlen = 1,
                           .msg_control = control.bytes,
                           .msg_controllen = sizeof control.bytes};
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_CREDENTIALS;
  header->cmsg_len = CMSG_LEN(sizeof(struct ucred));
  struct ucred self = {.pid = parent, .uid = getuid(), .gid = getgid()};
  memcpy(CMSG_DATA(header), &self, sizeof self);
  if (sendmsg(fd, &message, MSG_NOSIGNAL) >= 0 || errno != EPERM) return;
  message.msg_control = NULL;
  message.msg_controllen = 0;
  (void)sendmsg(fd, &message, MSG_NOSIGNAL);
}

int main(void) {
  static struct target target;
  static char line[line_max];
  pid_t parent = getppid();
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || parse_target(getenv("NOTIFY_SOCKET"), &target) < 0) {
    fprintf(stderr, "forkd-notify: NOTIFY_SOCKET names no socket\n");
    return 1;
  }
  while (fgets(line, sizeof line, stdin) != NULL) {
    size_t length = strcspn(line, "\n");
    int is_whole = line[length] == '\n';
    for (size_t i = 0; i < length; i++)
      if (line[i] == '\t') line[i] = '\n';
    tell(fd, &target, parent, line, length);
    for (int c = is_whole ? '\n' : 0; c != '\n' && c != EOF;) c = getchar();
  }
  return 0;
}
