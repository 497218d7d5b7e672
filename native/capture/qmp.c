/* The VMM's monitor: commands one at a time, answers in their order, events between them. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "capture.h"

enum {
  line_max = 64 * 1024,
  answer_ms_max = 30000,
  resume_ms_max = 5000,
  send_s_max = 5,
};

static struct {
  int fd;
  char bytes[line_max];
  size_t used;
  /* How many of `bytes` are the line that was handed out last. */
  size_t taken;
  /* Microseconds of QEMU's clock; 0 before the event. */
  uint64_t stopped_us;
  uint64_t resumed_us;
  unsigned pivoted;
  /* The id of the last command. */
  unsigned last_id;
} qmp = {.fd = -1};

/* The microseconds of an event; at least 1. */
static uint64_t stamp_of(const char *line) {
  const char *stamp = json_get(line, "timestamp");
  uint64_t seconds = 0, microseconds = 0;
  if (stamp == NULL || !json_number(json_get(stamp, "seconds"), &seconds)) return 1;
  if (!json_number(json_get(stamp, "microseconds"), &microseconds)) return 1;
  return seconds * 1000000u + microseconds;
}

static void take_event(const char *line, const char *name) {
  if (strcmp(name, "STOP") == 0) qmp.stopped_us = stamp_of(line);
  if (strcmp(name, "RESUME") == 0) qmp.resumed_us = stamp_of(line);
}

/* How long to wait for a line, and whether the guard may end the wait. */
struct patience {
  uint64_t deadline_us;
  bool guarded;
};

static struct patience guarded_wait(void) {
  return (struct patience){now_us() + answer_ms_max * 1000ull, true};
}

/* True when there is more to read before the deadline. */
static bool readable_within(struct patience patience) {
  for (;;) {
    uint64_t now = now_us();
    uint64_t left_us = now >= patience.deadline_us ? 0 : patience.deadline_us - now;
    struct pollfd fds[] = {{.fd = qmp.fd, .events = POLLIN},
                           {.fd = guard_end_fd(), .events = POLLIN}};
    int got = poll(fds, patience.guarded ? 2 : 1, (int)((left_us + 999) / 1000));
    if (got < 0 && errno != EINTR) return false;
    if (fds[0].revents != 0) return true;
    if (got > 0) guard_check();
    if (got == 0 && now_us() >= patience.deadline_us) return false;
  }
}

/* The next line, which is valid until the next call; NULL at the deadline or when QEMU is gone. */
static const char *next_line(struct patience patience) {
  qmp.used -= qmp.taken;
  memmove(qmp.bytes, qmp.bytes + qmp.taken, qmp.used);
  qmp.taken = 0;
  for (;;) {
    char *end = memchr(qmp.bytes, '\n', qmp.used);
    if (end != NULL) {
      *end = '\0';
      qmp.taken = (size_t)(end - qmp.bytes) + 1;
      return qmp.bytes;
    }
    if (qmp.used == line_max || !readable_within(patience)) return NULL;
    ssize_t got = recv(qmp.fd, qmp.bytes + qmp.used, line_max - qmp.used, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return NULL;
    qmp.used += (size_t)got;
  }
}

/* The next line that is no event, after events were noted. */
static const char *next_answer(struct patience patience) {
  for (;;) {
    const char *line = next_line(patience);
    char name[64];
    if (line == NULL) return NULL;
    if (!json_text(json_get(line, "event"), name, sizeof name)) return line;
    take_event(line, name);
  }
}

/*
 * The answer with this id. Others are not for us: the guard's, and late ones to a client that was
 * there before and is gone.
 */
static const char *answer_of(const char *id, const char *command) {
  struct patience patience = guarded_wait();
  for (;;) {
    const char *line = next_answer(patience);
    if (line == NULL) fail(CODE_MONITOR, "the VMM did not answer to %.80s", command);
    const char *value = json_get(line, "return");
    const char *error = json_get(line, "error");
    if (value == NULL && error == NULL) fail(CODE_MONITOR, "%.80s: no QMP came back", command);
    char found[32];
    if (!json_text(json_get(line, "id"), found, sizeof found) || strcmp(found, id) != 0) continue;
    if (value != NULL) return value;
    char words[256] = "it did not say why";
    json_text(json_get(error, "desc"), words, sizeof words);
    fail(CODE_MONITOR, "%.80s: %s", command, words);
  }
}

/* Room for an id; the commands are one thread's, so each id is used up before the next. */
struct id {
  char text[16];
};

static struct id next_id(void) {
  struct id id;
  snprintf(id.text, sizeof id.text, "c%u", ++qmp.last_id);
  return id;
}

/* The command with an id of ours as its first member. */
static void write_line(char *line, size_t size, const char *command, const char *id) {
  if (*command != '{') fail(CODE_MONITOR, "%.80s: a command is a JSON object", command);
  int length = snprintf(line, size, "{\"id\":\"%s\",%s\r\n", id, command + 1);
  if (length < 0 || (size_t)length >= size) fail(CODE_MONITOR, "a command is too long");
}

static const char *ask(const char *command) {
  char line[line_max];
  struct id id = next_id();
  write_line(line, sizeof line, command, id.text);
  if (!guard_send(line)) fail(CODE_MONITOR, "the monitor does not take commands");
  return answer_of(id.text, command);
}

static void connect_to(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) fail(CODE_MONITOR, "%s: the path is too long", path);
  strcpy(address.sun_path, path);
  qmp.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (qmp.fd < 0) fail_errno("socket", path);
  struct timeval wait = {.tv_sec = send_s_max};
  setsockopt(qmp.fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait);
  if (connect(qmp.fd, (struct sockaddr *)&address, sizeof address) != 0) {
    fail(CODE_MONITOR, "%s: connect: %s", path, strerror(errno));
  }
  guard_watch(qmp.fd);
}

void qmp_open(const char *path) {
  connect_to(path);
  const char *greeting = next_answer(guarded_wait());
  if (greeting == NULL || json_get(greeting, "QMP") == NULL) {
    fail(CODE_MONITOR, "%s: no greeting of QEMU; does another client use it?", path);
  }
  ask("{\"execute\":\"qmp_capabilities\"}");
  const char *status = ask("{\"execute\":\"query-status\"}");
  const char *running = json_get(status, "running");
  if (running == NULL || strncmp(running, "true", 4) != 0) {
    fail(CODE_MONITOR, "the VM does not run, so there is nothing to be captured in flight");
  }
}

void qmp_run(const char *command) { ask(command); }

void qmp_await_stop(void) { answer_of(STOP_ID, "stop"); }

void qmp_pivot(const char *command) {
  ask(command);
  qmp.pivoted++;
}

unsigned qmp_pivoted(void) { return qmp.pivoted; }

void qmp_give_fd(int fd, unsigned set) {
  char command[96], line[128];
  struct id id = next_id();
  const char *form = "{\"execute\":\"add-fd\",\"arguments\":{\"fdset-id\":%u}}";
  snprintf(command, sizeof command, form, set);
  write_line(line, sizeof line, command, id.text);
  ssize_t length = (ssize_t)strlen(line);
  struct iovec part = {.iov_base = line, .iov_len = (size_t)length};
  union {
    char bytes[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
  } control = {0};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1,
                           .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(header), &fd, sizeof fd);
  if (sendmsg(qmp.fd, &message, MSG_NOSIGNAL) != length) {
    fail(CODE_MONITOR, "the monitor does not take a descriptor");
  }
  answer_of(id.text, "add-fd");
}

bool qmp_await_resume(void) {
  struct patience patience = {now_us() + resume_ms_max * 1000ull, false};
  while (qmp.resumed_us == 0) {
    const char *line = next_line(patience);
    char name[64];
    if (line == NULL) return false;
    if (json_text(json_get(line, "event"), name, sizeof name)) take_event(line, name);
  }
  return true;
}

uint64_t qmp_pause_us(void) {
  return qmp.resumed_us > qmp.stopped_us ? qmp.resumed_us - qmp.stopped_us : 0;
}
