/*
 * forkd-broker: starts VMMs for the daemon, and tells it when they end.
 *
 * fork(2) copies the page tables of the process that calls it, which takes milliseconds in one with
 * a hundred MiB, and stops its event loop meanwhile. This one has hardly any. It starts
 * forkd-launch with what a VMM is to have, and keeps nothing of a VMM but a pidfd.
 *
 *   forkd-broker LAUNCHER
 *
 * Requests come on standard input, each a length (u32, little-endian) and so many bytes: words that
 * end with a NUL each. A list is its length, then its words.
 *
 *   start ID WORKDIR STDOUT FILES SOCKETS ENV ARGV
 *                     runs LAUNCHER with ARGV and ENV in WORKDIR, in a session of its own. It has
 *                     nothing to read; WORKDIR/vmm.log to write to, unless STDOUT is "nowhere", and
 *                     for complaints; from descriptor 3 on a listening socket in WORKDIR for each
 *                     name of SOCKETS, then each of FILES, to read.
 *   watch ID PID      tells of the end of a process that another broker started
 *   kill ID           SIGKILL, to that very process
 *
 * Answers are lines on standard output:
 *
 *   started ID PID    what connects to a socket from now on is heard, whenever the VMM gets to it
 *   failed ID WHY     there is no such process, or none was started
 *   ended ID CODE SIGNAL
 *                     each -1 when there is none or it is not known
 *
 * It ends with its input; what it has started runs on, unless that asked to die with its parent.
 * Exit: 0 at the end of the input, 1 when the input is not understood or nobody reads the answers.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
  request_max = 256 * 1024,
  words_max = 512,
  /* Descriptors that a VMM gets beyond the first three. */
  extras_max = 16,
  first_extra = 3,
  /* Above all targets, so that no dup2 overwrites what the next one needs. */
  parked_from = 64,
  processes_max = 8192,
  id_max = 32,
  backlog = 4,
};

struct process {
  char id[id_max];
  pid_t pid;
};

/* The words of one request, and how many of them have been read. */
struct request {
  char *words[words_max];
  size_t count, at;
};

struct list {
  char **words;
  size_t count;
};

/* Slot 0 of the polls is the input; slot n + 1 is the pidfd of process n. */
static struct pollfd polls[processes_max + 1];
static struct process processes[processes_max];
static size_t process_count;
static char *launcher;

static _Noreturn void give_up(const char *why) {
  fprintf(stderr, "forkd-broker: %s\n", why);
  exit(1);
}

static void answer(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void answer(const char *format, ...) {
  char line[512];
  va_list args;
  va_start(args, format);
  int length = vsnprintf(line, sizeof line - 1, format, args);
  va_end(args);
  size_t left = length < 0 ? 0 : (size_t)length;
  if (left > sizeof line - 2) left = sizeof line - 2;
  line[left++] = '\n';
  for (char *from = line; left > 0;) {
    ssize_t written = write(STDOUT_FILENO, from, left);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) give_up("nobody reads the answers");
    from += written;
    left -= (size_t)written;
  }
}

static char *next_word(struct request *request) {
  if (request->at >= request->count) give_up("a request lacks words");
  return request->words[request->at++];
}

static struct list next_list(struct request *request) {
  char *end = NULL;
  const char *text = next_word(request);
  unsigned long count = strtoul(text, &end, 10);
  if (*text == '\0' || *end != '\0' || count > request->count - request->at) {
    give_up("a request has a list without its words");
  }
  struct list list = {request->words + request->at, count};
  request->at += count;
  return list;
}

static int pidfd_of(pid_t pid) { return (int)syscall(SYS_pidfd_open, pid, 0); }

/* A full table is the daemon's fault; it has bounds far below this one. */
static int add_process(const char *id, pid_t pid) {
  if (process_count == processes_max || strlen(id) >= id_max) return -1;
  int fd = pidfd_of(pid);
  if (fd < 0) return -1;
  struct process *process = &processes[process_count++];
  strcpy(process->id, id);
  process->pid = pid;
  polls[process_count] = (struct pollfd){.fd = fd, .events = POLLIN};
  return 0;
}

/* Its descriptors above parked_from, all to be closed on exec; those not had are -1. */
struct outfit {
  int work_dir, nothing, log, is_mute;
  int extras[extras_max];
  size_t extra_count;
};

static void close_outfit(struct outfit *outfit) {
  if (outfit->work_dir >= 0) close(outfit->work_dir);
  if (outfit->nothing >= 0) close(outfit->nothing);
  if (outfit->log >= 0) close(outfit->log);
  for (size_t i = 0; i < outfit->extra_count; i++) close(outfit->extras[i]);
}

static int park(int fd) {
  if (fd < 0) return -1;
  int parked = fcntl(fd, F_DUPFD_CLOEXEC, parked_from);
  int error = errno;
  close(fd);
  errno = error;
  return parked;
}

/* By way of the directory's descriptor: a path of any length fits into the address. */
static int listening_socket(int work_dir, const char *name) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  int length = snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%s", work_dir,
                        name);
  if (length < 0 || (size_t)length >= sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    return -1;
  }
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  if (bind(fd, (struct sockaddr *)&address, sizeof address) == 0 && listen(fd, backlog) == 0) {
    return fd;
  }
  int error = errno;
  close(fd);
  errno = error;
  return -1;
}

/* Says what could not be had, or null. */
static const char *outfit_for(const char *work_dir, struct list files, struct list sockets,
                              struct outfit *outfit) {
  *outfit = (struct outfit){.work_dir = -1, .nothing = -1, .log = -1};
  if (files.count + sockets.count > extras_max) {
    errno = E2BIG;
    return "its files";
  }
  outfit->work_dir = park(open(work_dir, O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (outfit->work_dir < 0) return work_dir;
  outfit->nothing = park(open("/dev/null", O_RDWR | O_CLOEXEC));
  if (outfit->nothing < 0) return "/dev/null";
  int flags = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW;
  outfit->log = park(openat(outfit->work_dir, "vmm.log", flags, 0600));
  if (outfit->log < 0) return "vmm.log";
  for (size_t i = 0; i < sockets.count; i++) {
    int fd = park(listening_socket(outfit->work_dir, sockets.words[i]));
    if (fd < 0) return sockets.words[i];
    outfit->extras[outfit->extra_count++] = fd;
  }
  for (size_t i = 0; i < files.count; i++) {
    int fd = park(open(files.words[i], O_RDONLY | O_CLOEXEC));
    if (fd < 0) return files.words[i];
    outfit->extras[outfit->extra_count++] = fd;
  }
  return NULL;
}

/* In the child. What goes wrong is said in the log, as what the launcher says. */
static _Noreturn void become_launcher(const struct outfit *outfit, char **argv, char **env) {
  int out = outfit->is_mute ? outfit->nothing : outfit->log;
  int is_ready = dup2(outfit->nothing, 0) == 0 && dup2(out, 1) == 1 && dup2(outfit->log, 2) == 2 &&
                 fchdir(outfit->work_dir) == 0 && setsid() > 0;
  for (size_t i = 0; i < outfit->extra_count; i++) {
    int target = first_extra + (int)i;
    is_ready = is_ready && dup2(outfit->extras[i], target) == target;
  }
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  signal(SIGPIPE, SIG_DFL);
  if (is_ready) execve(launcher, argv, env);
  dprintf(2, "forkd-broker: %s: %s\n", launcher, strerror(errno));
  _exit(125);
}

/* The lists stand behind each other in one request, so each is copied to end with a null. */
static char **terminated(struct list list, char *first) {
  size_t extra = first == NULL ? 0 : 1;
  char **words = calloc(list.count + extra + 1, sizeof *words);
  if (words == NULL) give_up("no memory");
  if (first != NULL) words[0] = first;
  memcpy(words + extra, list.words, list.count * sizeof *words);
  return words;
}

static void do_start(struct request *request) {
  const char *id = next_word(request);
  const char *work_dir = next_word(request);
  int is_mute = strcmp(next_word(request), "nowhere") == 0;
  struct list files = next_list(request), sockets = next_list(request);
  struct list env = next_list(request), argv = next_list(request);
  struct outfit outfit;
  const char *missing = outfit_for(work_dir, files, sockets, &outfit);
  outfit.is_mute = is_mute;
  if (missing != NULL) {
    answer("failed %s %.300s: %s", id, missing, strerror(errno));
    close_outfit(&outfit);
    return;
  }
  char **child_argv = terminated(argv, launcher), **child_env = terminated(env, NULL);
  pid_t pid = fork();
  if (pid == 0) become_launcher(&outfit, child_argv, child_env);
  int error = errno;
  free(child_argv);
  free(child_env);
  close_outfit(&outfit);
  if (pid < 0) {
    answer("failed %s fork: %s", id, strerror(error));
  } else if (add_process(id, pid) != 0) {
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    answer("failed %s too many processes", id);
  } else {
    answer("started %s %d", id, (int)pid);
  }
}

static void do_watch(struct request *request) {
  const char *id = next_word(request);
  pid_t pid = (pid_t)atoi(next_word(request));
  if (pid > 0 && add_process(id, pid) == 0) answer("started %s %d", id, (int)pid);
  else answer("failed %s no such process", id);
}

static void do_kill(struct request *request) {
  const char *id = next_word(request);
  for (size_t i = 0; i < process_count; i++) {
    if (strcmp(processes[i].id, id) != 0) continue;
    (void)syscall(SYS_pidfd_send_signal, polls[i + 1].fd, SIGKILL, NULL, 0);
    return;
  }
}

static void obey(char *bytes, size_t size) {
  struct request request = {.count = 0};
  if (size == 0 || bytes[size - 1] != '\0') give_up("a request does not end");
  for (char *word = bytes; word < bytes + size; word += strlen(word) + 1) {
    if (request.count == words_max) give_up("a request has too many words");
    request.words[request.count++] = word;
  }
  const char *verb = next_word(&request);
  if (strcmp(verb, "start") == 0) do_start(&request);
  else if (strcmp(verb, "watch") == 0) do_watch(&request);
  else if (strcmp(verb, "kill") == 0) do_kill(&request);
  else give_up("an unknown request");
}

/* Of a process that is not our child, waitid knows nothing. */
static void tell_end(size_t index) {
  siginfo_t info = {0};
  int code = -1, sig = -1;
  if (waitid(P_PID, (id_t)processes[index].pid, &info, WEXITED) == 0) {
    if (info.si_code == CLD_EXITED) code = info.si_status;
    else sig = info.si_status;
  }
  answer("ended %s %d %d", processes[index].id, code, sig);
  close(polls[index + 1].fd);
  process_count--;
  processes[index] = processes[process_count];
  polls[index + 1] = polls[process_count + 1];
}

/* Takes what has come; obeys what is whole. Returns 0 at the end of the input. */
static int take_input(void) {
  static char buffer[request_max];
  static size_t filled;
  ssize_t got = read(STDIN_FILENO, buffer + filled, sizeof buffer - filled);
  if (got < 0 && (errno == EINTR || errno == EAGAIN)) return 1;
  if (got <= 0) return 0;
  filled += (size_t)got;
  size_t from = 0;
  for (;;) {
    uint32_t size;
    if (filled - from < sizeof size) break;
    const unsigned char *at = (unsigned char *)buffer + from;
    size = at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
    if (size > sizeof buffer - sizeof size) give_up("a request is too long");
    if (filled - from - sizeof size < size) break;
    obey(buffer + from + sizeof size, size);
    from += sizeof size + size;
  }
  memmove(buffer, buffer + from, filled - from);
  filled -= from;
  return 1;
}

int main(int argc, char **argv) {
  if (argc != 2) give_up("usage: forkd-broker LAUNCHER");
  launcher = argv[1];
  signal(SIGPIPE, SIG_IGN);
  polls[0] = (struct pollfd){.fd = STDIN_FILENO, .events = POLLIN};
  for (;;) {
    if (poll(polls, process_count + 1, -1) < 0) {
      if (errno == EINTR) continue;
      give_up("poll");
    }
    /* From the last on: an entry that goes is replaced by one that was looked at. */
    for (size_t i = process_count; i > 0; i--) {
      if (polls[i].revents != 0) tell_end(i - 1);
    }
    if (polls[0].revents != 0 && !take_input()) return 0;
  }
}
