/* The command line and the HTTP of it: one request at a time, connections are kept. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fake.h"
#include "loop.h"

#define HEAD_BYTES_MAX 8192U
/* Upstream's own bound on connections to its API. */
#define CONNECTIONS_MAX 10

struct conn {
  struct watch watch;
  struct buf in;
};

static struct watch door;
static unsigned connections;

static void hang_up(struct conn *c) {
  loop_unwatch(&c->watch);
  close(c->watch.fd);
  buf_free(&c->in);
  free(c);
  connections--;
}

static void send_answer(struct conn *c, const struct answer *a) {
  char head[256];
  const char *words = a->status == 204 ? "No Content" : a->status == 200 ? "OK" : "Bad Request";
  int n = snprintf(head, sizeof head,
                   "HTTP/1.1 %u %s\r\nServer: Firecracker API\r\nConnection: keep-alive\r\n",
                   a->status, words);
  if (a->status != 204) {
    n += snprintf(head + n, sizeof head - (size_t)n,
                  "Content-Type: application/json\r\nContent-Length: %zu\r\n", a->body.len);
  }
  n += snprintf(head + n, sizeof head - (size_t)n, "\r\n");
  send(c->watch.fd, head, (size_t)n, MSG_NOSIGNAL);
  if (a->status != 204) send(c->watch.fd, buf_head(&a->body), a->body.len, MSG_NOSIGNAL);
}

static void perform(const char *method, const char *path, const struct json *body,
                    struct answer *a) {
  const struct endpoint *e = contract_check(method, path, body, a);
  if (e) endpoint_handler(e)(body, a);
}

/* False when there is to be no answer. */
static bool decide(const char *method, const char *path, const struct buf *raw, struct answer *a) {
  char step[320];
  char words[256];
  struct json_doc doc = {0};
  snprintf(step, sizeof step, "%s,%s", method, path);
  if (faults_before(step, words)) {
    /* Devices are told before anything else is done, and can go wrong. */
    if (vm.state == PAUSED && strcmp(path, "/snapshot/create") == 0) vsock_reset();
    if (*words) answer_fault(a, "%s", words);
    return *words != 0;
  }
  if (raw->len > 0 && json_parse(&doc, (const char *)buf_head(raw), raw->len) < 0) {
    answer_fault(a, "An error occurred when deserializing the json body of a request: syntax.");
    return true;
  }
  perform(method, path, doc.root, a);
  json_free(&doc);
  if (!faults_after(step, words)) return true;
  if (*words) answer_fault(a, "%s", words);
  return *words != 0;
}

static void handle(struct conn *c, char *head, struct buf *body) {
  char method[8];
  char path[300];
  struct answer a = {.status = 204};
  buf_init(&a.body, HTTP_BODY_BYTES_MAX);
  if (sscanf(head, "%7s %299s", method, path) != 2) {
    answer_fault(&a, "Invalid HTTP.");
    send_answer(c, &a);
  } else {
    faults_note(method, path, (const char *)buf_head(body), body->len);
    if (decide(method, path, body, &a)) send_answer(c, &a);
    else shutdown(c->watch.fd, SHUT_RDWR);
  }
  buf_free(&a.body);
  if (vm_doomed) exit(1);
}

static size_t content_length(const char *head) {
  const char *at = strcasestr(head, "\r\ncontent-length:");
  return at ? (size_t)strtoul(at + strlen("\r\ncontent-length:"), NULL, 10) : 0;
}

/* True when a whole request was there. */
static bool take_request(struct conn *c) {
  const char *text = buf_text(&c->in);
  const char *end = strstr(text, "\r\n\r\n");
  if (!end) return false;
  size_t head_len = (size_t)(end - text) + 4;
  char *head = xstrndup(text, head_len);
  size_t len = content_length(head);
  bool whole = len <= HTTP_BODY_BYTES_MAX && c->in.len >= head_len + len;
  if (whole) {
    struct buf body;
    buf_init(&body, HTTP_BODY_BYTES_MAX);
    buf_add(&body, buf_head(&c->in) + head_len, len);
    buf_consume(&c->in, head_len + len);
    handle(c, head, &body);
    buf_free(&body);
  }
  free(head);
  return whole;
}

static void on_request(void *arg, uint32_t events) {
  struct conn *c = arg;
  (void)events;
  char data[16384];
  ssize_t n = recv(c->watch.fd, data, sizeof data, 0);
  if (n < 0 && errno == EINTR) return;
  if (n <= 0 || !buf_add(&c->in, data, (size_t)n)) {
    hang_up(c);
    return;
  }
  while (take_request(c)) continue;
}

static void on_door(void *arg, uint32_t events) {
  (void)arg;
  (void)events;
  int fd = accept4(door.fd, NULL, NULL, SOCK_CLOEXEC);
  if (fd < 0) return;
  if (connections == CONNECTIONS_MAX) {
    close(fd);
    return;
  }
  connections++;
  struct conn *c = calloc(1, sizeof *c);
  buf_init(&c->in, HEAD_BYTES_MAX + HTTP_BODY_BYTES_MAX);
  loop_watch(&c->watch, fd, EPOLLIN, on_request, c);
}

static int listen_at(const char *path) {
  struct sockaddr_un at = {.sun_family = AF_UNIX};
  snprintf(at.sun_path, sizeof at.sun_path, "%s", path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (bind(fd, (struct sockaddr *)&at, sizeof at) == 0 && listen(fd, 16) == 0) return fd;
  fprintf(stderr, "Failed to open the API socket at: %s. Check that it is not already used.\n",
          path);
  exit(1);
}

static const char *api_socket(int argc, char **argv) {
  const char *path = NULL;
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--version") == 0) {
      printf("Firecracker v%s\n\nSupported snapshot data format versions: v8.0.0\n",
             fake_version_text);
      exit(0);
    }
    bool known = strcmp(argv[i], "--api-sock") == 0 || strcmp(argv[i], "--id") == 0 ||
                 strcmp(argv[i], "--level") == 0 || strcmp(argv[i], "--start-time-us") == 0 ||
                 strcmp(argv[i], "--start-time-cpu-us") == 0 ||
                 strcmp(argv[i], "--parent-cpu-time-us") == 0;
    if (!known || i + 1 == argc) {
      fprintf(stderr, "Arguments parsing error: Found argument '%s' which wasn't expected, or isn't"
                      " valid in this context.\n", argv[i]);
      exit(153);
    }
    if (strcmp(argv[i++], "--api-sock") == 0) path = argv[i];
  }
  return path ? path : "/run/firecracker.socket";
}

int main(int argc, char **argv) {
  char words[256];
  signal(SIGPIPE, SIG_IGN);
  signal(SIGCHLD, SIG_IGN);
  faults_read();
  const char *path = api_socket(argc, argv);
  if (faults_before("start", words)) {
    fprintf(stderr, "%s\n", words);
    return 1;
  }
  loop_init();
  loop_watch(&door, listen_at(path), EPOLLIN, on_door, NULL);
  loop_run();
  return 0;
}
