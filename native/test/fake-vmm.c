/*
 * A VMM for the tests of forkd-capture: a process that maps a RAM as QEMU does, writes to it while
 * it "runs", and plays QEMU's monitor. At each `stop` it notes its RAM: what a capture must hold.
 *
 *   fake-vmm SOCKET BASE RAM_BYTES TRUTH [OPTION]...
 *     overlay=FILE extents=FILE   as for forkd-ram, but read by the same simple means as here
 *     untracked                   no userfaultfd
 *     idle                        no writer
 *     stale                       a greeting is followed by answers to a client that is gone
 *     paused                      query-status says that it does not run
 *     COMMAND=die|mute|close|error|noise|flood|slow   what it does at that command
 *
 * stdout: `ready`, then each command. It ends when stdin does.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

enum { page_size = 4096, line_max = 4096, slow_ms = 400, pages_at_first = 600 };

static const char *truth_path;
static uint8_t *ram;
static size_t ram_bytes;
static int client = -1;
static int state_fd = -1;
static int option_count;
static char **options;

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static bool running = true;
/* A disk was told to write elsewhere. */
static bool pivoted;

static _Noreturn void die(const char *what) {
  perror(what);
  exit(2);
}

static const char *option(const char *name) {
  size_t length = strlen(name);
  for (int i = 0; i < option_count; i++) {
    if (strncmp(options[i], name, length) != 0) continue;
    if (options[i][length] == '\0') return "";
    if (options[i][length] == '=') return options[i] + length + 1;
  }
  return NULL;
}

static int open_file(const char *path) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) die(path);
  return fd;
}

static void map_overlay(void) {
  int table = open_file(option("extents"));
  int fd = open_file(option("overlay"));
  uint64_t extent[2];
  while (read(table, extent, sizeof extent) == sizeof extent) {
    void *at = mmap(ram + extent[0], extent[1], PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd,
                    (off_t)extent[0]);
    if (at == MAP_FAILED) die("overlay");
  }
}

static void map_ram(const char *base) {
  int fd = open_file(base);
  ram = mmap(NULL, ram_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
  if (ram == MAP_FAILED) die(base);
  if (option("overlay") != NULL) map_overlay();
}

static void open_tracker(void) {
  struct uffdio_api api = {.api = UFFD_API, .features = 1ull << 15 | 1ull << 13 | 1};
  int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | 1);
  if (fd >= 0 && ioctl(fd, UFFDIO_API, &api) != 0) close(fd);
}

static uint64_t next_random(void) {
  static uint64_t state = 88172645463325252u;
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

/* A page with new bytes, of zeros, or written with what it held. */
static void write_page(void) {
  uint8_t *page = ram + next_random() % (ram_bytes / page_size) * page_size;
  switch (next_random() % 4) {
    case 0: memset(page, 0, page_size); break;
    case 1: *(volatile uint8_t *)page = *page; break;
    default: memset(page, (int)(next_random() & 0xff), page_size);
  }
}

static void *write_always(void *unused) {
  for (;;) {
    pthread_mutex_lock(&turn);
    for (int i = 0; running && i < 32; i++) write_page();
    pthread_mutex_unlock(&turn);
    usleep(100);
  }
  return unused;
}

static void note_truth(void) {
  int fd = open(truth_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0 || write(fd, ram, ram_bytes) != (ssize_t)ram_bytes) die(truth_path);
  close(fd);
}

static void say(const char *text) {
  if (send(client, text, strlen(text), MSG_NOSIGNAL) < 0) return;
}

static void say_event(const char *name) {
  struct timeval now;
  gettimeofday(&now, NULL);
  char line[256];
  const char *form = "{\"timestamp\": {\"seconds\": %lld, \"microseconds\": %lld}, "
                     "\"event\": \"%s\"}\r\n";
  snprintf(line, sizeof line, form, (long long)now.tv_sec, (long long)now.tv_usec, name);
  say(line);
}

static void set_running(bool now) {
  pthread_mutex_lock(&turn);
  bool was = running;
  running = now;
  if (was && !now) note_truth();
  pthread_mutex_unlock(&turn);
  if (was != now) say_event(now ? "RESUME" : "STOP");
}

/* More than any line of QMP. */
static void flood(void) {
  char bytes[1024];
  memset(bytes, 'x', sizeof bytes - 1);
  bytes[sizeof bytes - 1] = '\0';
  for (int i = 0; i < 1024; i++) say(bytes);
}

/* An answer has the id of its command. */
static void say_answer(const char *line, const char *member) {
  char id[64] = "";
  const char *at = strstr(line, "\"id\":");
  if (at != NULL) sscanf(at, "%63[^,}]", id);
  char text[256];
  snprintf(text, sizeof text, "{%s%s%s}\r\n", member, at == NULL ? "" : ", ", id);
  say(text);
}

/* What the test asked for instead of an answer; false when it is to be answered. */
static bool misbehave(const char *command, const char *line) {
  const char *how = option(command);
  if (how == NULL) return false;
  if (strcmp(how, "die") == 0) _exit(1);
  if (strcmp(how, "close") == 0) shutdown(client, SHUT_RDWR);
  if (strcmp(how, "error") == 0) {
    say_answer(line, "\"error\": {\"class\": \"GenericError\", \"desc\": \"it \\\"may\\\" not\"}");
  }
  if (strcmp(how, "noise") == 0) say("hello\r\n");
  if (strcmp(how, "flood") == 0) flood();
  if (strcmp(how, "slow") == 0) usleep(slow_ms * 1000);
  return strcmp(how, "slow") != 0;
}

static const char *value_for(const char *command) {
  if (strcmp(command, "query-status") == 0) {
    return option("paused") == NULL ? "{\"running\": true}" : "{\"running\": false}";
  }
  if (strcmp(command, "query-block") == 0) {
    return pivoted ? "[{\"inserted\": {\"node-name\": \"new\"}}]"
                   : "[{\"inserted\": {\"node-name\": \"old\"}}]";
  }
  return "{}";
}

static void answer(const char *command, const char *line) {
  char member[128];
  snprintf(member, sizeof member, "\"return\": %s", value_for(command));
  say_answer(line, member);
}

static void obey(const char *line) {
  char command[64];
  const char *at = strstr(line, "\"execute\":\"");
  if (at == NULL || sscanf(at + 11, "%63[^\"]", command) != 1) die("a command");
  printf("%s\n", command);
  fflush(stdout);
  if (misbehave(command, line)) return;
  if (strcmp(command, "stop") == 0) set_running(false);
  if (strcmp(command, "cont") == 0) set_running(true);
  bool save = strcmp(command, "xen-save-devices-state") == 0;
  if (save && write(state_fd, "STATE", 5) != 5) die("state");
  if (strcmp(command, "blockdev-snapshot") == 0) pivoted = true;
  answer(command, line);
}

static ssize_t receive(char *to, size_t size) {
  struct iovec part = {.iov_base = to, .iov_len = size};
  char control[CMSG_SPACE(sizeof(int))];
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1,
                           .msg_control = control, .msg_controllen = sizeof control};
  ssize_t got = recvmsg(client, &message, MSG_CMSG_CLOEXEC);
  struct cmsghdr *header = got > 0 ? CMSG_FIRSTHDR(&message) : NULL;
  if (header != NULL) memcpy(&state_fd, CMSG_DATA(header), sizeof state_fd);
  return got;
}

static void serve_client(void) {
  char bytes[line_max + 1];
  size_t used = 0;
  say("{\"QMP\": {\"version\": {}, \"capabilities\": [\"oob\"]}}\r\n");
  if (option("stale") != NULL) {
    say("{\"return\": {\"late\": 1}}\r\n{\"return\": {}, \"id\": \"guard\"}\r\n");
    say("{\"error\": {\"class\": \"GenericError\", \"desc\": \"late\"}}\r\n");
  }
  for (;;) {
    ssize_t got = receive(bytes + used, line_max - used);
    if (got <= 0) return;
    used += (size_t)got;
    bytes[used] = '\0';
    for (char *end; (end = strchr(bytes, '\n')) != NULL;) {
      *end = '\0';
      obey(bytes);
      used -= (size_t)(end + 1 - bytes);
      memmove(bytes, end + 1, used + 1);
    }
  }
}

static int listen_at(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) die("the socket's path");
  strcpy(address.sun_path, path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 1) != 0) die(path);
  return fd;
}

static void *end_with_stdin(void *unused) {
  char byte;
  while (read(STDIN_FILENO, &byte, 1) > 0) continue;
  _exit(0);
  return unused;
}

int main(int argc, char **argv) {
  if (argc < 5) return 2;
  ram_bytes = strtoull(argv[3], NULL, 10);
  truth_path = argv[4];
  options = argv + 5;
  option_count = argc - 5;
  map_ram(argv[2]);
  if (option("untracked") == NULL) open_tracker();
  for (int i = 0; i < pages_at_first; i++) write_page();
  int listener = listen_at(argv[1]);
  pthread_t thread;
  pthread_create(&thread, NULL, end_with_stdin, NULL);
  if (option("idle") == NULL) pthread_create(&thread, NULL, write_always, NULL);
  printf("ready\n");
  fflush(stdout);
  for (;;) {
    client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (client >= 0) serve_client();
    close(client);
  }
}
