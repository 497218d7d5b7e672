#include "client.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cells.h"
#include "files.h"
#include "identity.h"
#include "job.h"
#include "log.h"
#include "loop.h"
#include "reap.h"
#include "runtime.h"
#include "session.h"
#include "tap.h"
#include "tcp.h"

#define WAIT_MS 20000

static int fd = -1;
static pid_t agent;
static const char *cgroup;
static char root[64];
static uint8_t token[TOKEN_BYTES];
static uint32_t next_stream;
static struct outcome last;
static uint8_t frame_data[FRAME_HEADER_BYTES + FRAME_PAYLOAD_BYTES_MAX];

static void run_agent(int channel, unsigned port) {
  log_mute();
  files_set_root(root);
  runtime_set_dir(RUNTIME_DIR);
  identity_simulate();
  loop_init();
  reap_init();
  if (cgroup) cells_init(cgroup);
  session_start(channel, true);
  if (port) tcp_start(port);
  loop_run();
  job_kill_all();
  runtime_kill();
  exit(0);
}

const char *agent_root(void) { return root; }
void agent_cgroup(const char *dir) { cgroup = dir; }
struct outcome *client_last(void) { return &last; }

void agent_start(unsigned tcp_port) {
  int pair[2];
  strcpy(root, "/tmp/forkd-test-XXXXXX");
  if (!mkdtemp(root) || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) exit(2);
  char path[128];
  static const char *const dirs[] = {"etc", "run", "etc/forkd", "etc/forkd/fork.d"};
  for (size_t i = 0; i < 4; i++) {
    snprintf(path, sizeof path, "%s/%s", root, dirs[i]);
    mkdir(path, 0755);
  }
  fflush(stdout);
  agent = fork();
  if (agent == 0) {
    close(pair[0]);
    run_agent(pair[1], tcp_port);
  }
  close(pair[1]);
  fd = pair[0];
  memcpy(token, FIRST_TOKEN, TOKEN_BYTES);
  next_stream = 1;
}

bool agent_stop(void) {
  int status = 0;
  char command[128];
  close(fd);
  waitpid(agent, &status, 0);
  snprintf(command, sizeof command, "rm -rf -- %s", root);
  if (system(command) != 0) note("%s was not removed", root);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

void client_raw(const void *data, size_t len) {
  const char *bytes = data;
  while (len > 0) {
    ssize_t n = write(fd, bytes, len);
    if (n <= 0) return;
    bytes += n;
    len -= (size_t)n;
  }
}

void client_send(uint8_t type, uint32_t stream, const void *data, uint32_t len) {
  uint8_t header[FRAME_HEADER_BYTES];
  frame_header(header, type, stream, len);
  client_raw(header, sizeof header);
  client_raw(data, len);
}

/* Reads exactly `len` bytes; false at the end or when nothing comes for `ms`. */
static bool read_exact(uint8_t *to, size_t len, int ms) {
  while (len > 0) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (poll(&p, 1, ms) <= 0) return false;
    ssize_t n = read(fd, to, len);
    if (n <= 0) return false;
    to += n;
    len -= (size_t)n;
  }
  return true;
}

static bool read_frame(struct frame *f, int ms) {
  if (!read_exact(frame_data, FRAME_HEADER_BYTES, ms)) return false;
  *f = (struct frame){frame_data[4], le32(frame_data + 8), frame_data + FRAME_HEADER_BYTES,
                      le32(frame_data)};
  return f->length <= FRAME_PAYLOAD_BYTES_MAX &&
         read_exact(frame_data + FRAME_HEADER_BYTES, f->length, WAIT_MS);
}

static void reset(void) {
  buf_free(&last.out);
  buf_free(&last.err);
  buf_free(&last.events);
  buf_init(&last.out, 64U << 20);
  buf_init(&last.err, 64U << 20);
  buf_init(&last.events, 64U << 20);
  last.type = 0;
  last.text[0] = 0;
}

/* True when the frame is the last one of its stream. */
static bool take(const struct frame *f, bool credit) {
  uint8_t word[4];
  put_le32(word, f->length);
  switch (f->type) {
    case FRAME_STDOUT: buf_add(&last.out, f->payload, f->length); break;
    case FRAME_STDERR: buf_add(&last.err, f->payload, f->length); break;
    case FRAME_EVENT:
      buf_add(&last.events, f->payload, f->length);
      buf_puts(&last.events, "\n");
      return false;
    case FRAME_REPLY:
    case FRAME_ERROR:
      last.type = f->type;
      memcpy(last.text, f->payload, f->length);
      last.text[f->length] = 0;
      return true;
    default: return false;
  }
  if (credit) client_send(FRAME_WINDOW, f->stream, word, sizeof word);
  return false;
}

struct outcome *client_wait(uint32_t stream, bool credit) {
  struct frame f;
  reset();
  while (read_frame(&f, WAIT_MS)) {
    if (f.stream == stream && take(&f, credit)) break;
  }
  return &last;
}

struct outcome *client_collect(unsigned ms) {
  struct frame f;
  reset();
  while (read_frame(&f, (int)ms)) take(&f, false);
  return &last;
}

bool client_attach(void) {
  static const char hello[] = "{\"op\":\"hello\",\"protocol\":1,"
                              "\"echo_b64\":\"ZWNob2VjaG9lY2hvZWNobw==\","
                              "\"next_token_b64\":\"dG9rZW50b2tlbnRva2VuVA==\"}";
  static const char echo[] = "echoechoechoecho";
  client_raw(token, TOKEN_BYTES);
  client_send(FRAME_REQUEST, 0, hello, sizeof hello - 1);
  memcpy(token, "tokentokentokenT", TOKEN_BYTES);
  uint8_t byte;
  for (size_t matched = 0; matched < TOKEN_BYTES;) {
    if (!read_exact(&byte, 1, WAIT_MS)) return false;
    matched = byte == (uint8_t)echo[matched] ? matched + 1 : byte == 'e';
  }
  return client_wait(0, false)->type == FRAME_REPLY;
}

uint32_t client_request(const char *json) {
  client_send(FRAME_REQUEST, next_stream, json, (uint32_t)strlen(json));
  return next_stream++;
}

struct outcome *client_call(const char *json) { return client_wait(client_request(json), true); }

struct outcome *client_eval(const char *code, unsigned timeout_ms) {
  char request[128];
  size_t len = strlen(code);
  snprintf(request, sizeof request, "{\"op\":\"eval\",\"code_bytes\":%zu,\"timeout_ms\":%u}", len,
           timeout_ms);
  uint32_t stream = client_request(request);
  for (size_t at = 0; at < len; at += 32768) {
    client_send(FRAME_STDIN, stream, code + at, (uint32_t)(len - at < 32768 ? len - at : 32768));
  }
  return client_wait(stream, true);
}

bool client_has(const char *part, const char *name) {
  bool has = strstr(last.text, part) != NULL;
  if (!check(has, "%s", name)) note("%s", last.text);
  return has;
}
