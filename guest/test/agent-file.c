#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent-tests.h"
#include "client.h"
#include "tap.h"

#define RECORD_BYTES 36

static void base64(const char *text, char *out) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const uint8_t *p = (const uint8_t *)text;
  for (size_t left = strlen(text); left > 0; left = left > 3 ? left - 3 : 0, p += 3) {
    uint32_t bits = (uint32_t)p[0] << 16;
    if (left > 1) bits |= (uint32_t)p[1] << 8;
    if (left > 2) bits |= p[2];
    for (size_t i = 0; i < 4; i++) {
      *out++ = i > left ? '=' : digits[bits >> (18 - 6 * i) & 63];
    }
  }
  *out = 0;
}

/* A path under the agent's own directory, in the request's form. */
static const char *at(const char *name) {
  static char forms[2][1024];
  static int turn;
  char path[512];
  snprintf(path, sizeof path, "%.200s/%.200s", agent_root(), name);
  turn = !turn;
  base64(path, forms[turn]);
  return forms[turn];
}

static const char *ask(const char *action, const char *path, const char *more) {
  static char json[4096];
  snprintf(json, sizeof json,
           "{\"op\":\"file\",\"action\":\"%s\",\"path_b64\":\"%s\",\"timeout_ms\":10000%s}", action,
           path, more);
  return json;
}

static void piece(uint32_t s, const char *text) {
  uint8_t bytes[256];
  uint32_t len = (uint32_t)strlen(text);
  put_le32(bytes, len);
  memcpy(bytes + 4, text, len);
  client_send(FRAME_STDIN, s, bytes, len + 4);
}

static struct outcome *put(const char *name, const char *text, const char *more) {
  uint32_t s = client_request(ask("write", at(name), more));
  if (*text) piece(s, text);
  piece(s, "");
  return client_wait(s, true);
}

static bool holds(const char *name, const char *text) {
  struct outcome *o = client_call(ask("read", at(name), ""));
  size_t len = strlen(text);
  return o->type == FRAME_REPLY && o->out.len == RECORD_BYTES + len &&
         memcmp(buf_head(&o->out) + RECORD_BYTES, text, len) == 0;
}

static void fails(const struct outcome *o, const char *code, const char *name) {
  char text[64];
  snprintf(text, sizeof text, "\"code\":\"%s\"", code);
  if (!check(o->type == FRAME_ERROR && strstr(o->text, text), "file: %s", name)) note("%s", o->text);
}

static mode_t mode_of(const char *name) {
  char path[512];
  struct stat st;
  snprintf(path, sizeof path, "%.200s/%.200s", agent_root(), name);
  return stat(path, &st) == 0 ? st.st_mode & 07777 : 0;
}

static void writes(void) {
  check(put("a", "one", "")->type == FRAME_REPLY && holds("a", "one"), "file: write and read");
  check(mode_of("a") == 0644, "file: the usual mode");
  put("a", "two", ",\"mode\":448");
  check(holds("a", "two") && mode_of("a") == 0700, "file: replaced, with the mode asked for");
  put("a", "three", "");
  check(holds("a", "three") && mode_of("a") == 0700, "file: the mode is kept");
  check(put("empty", "", "")->type == FRAME_REPLY && holds("empty", ""), "file: nothing at all");
  fails(put("a", "x", ",\"exclusive\":true"), "file_exists", "exclusive");
  fails(put("none/a", "x", ""), "file_not_found", "no directory");
  check(put("new/deep/a", "x", ",\"parents\":true")->type == FRAME_REPLY && holds("new/deep/a", "x"),
        "file: parents");
  fails(put("new", "x", ""), "is_a_directory", "over a directory");
}

/* What was begun and not finished shows nowhere, and leaves nothing. */
static void cuts(void) {
  uint32_t s = client_request(ask("write", at("a"), ""));
  piece(s, "half");
  client_send(FRAME_STDIN, s, "", 0);
  fails(client_wait(s, true), "cut", "an input that ends early");
  check(holds("a", "three"), "file: a cut write changes nothing");
  struct outcome *o = client_call(ask("list", at("."), ""));
  check(o->type == FRAME_REPLY && !memmem(buf_head(&o->out), o->out.len, ".tmp", 4),
        "file: a cut write leaves nothing");
  s = client_request(ask("write", at("a"), ""));
  piece(s, "half");
  check(client_attach(), "file: a new session during a write");
  client_call("{\"op\":\"exec\",\"argv\":[\"sleep\",\"0.2\"],\"timeout_ms\":9000}");
  check(holds("a", "three"), "file: a session that ends cuts its writes");
}

static void reads(void) {
  struct outcome *o = client_call(ask("read", at("a"), ",\"offset\":1,\"length\":3"));
  check(o->out.len == RECORD_BYTES + 3 && memcmp(buf_head(&o->out) + RECORD_BYTES, "hre", 3) == 0,
        "file: a range");
  o = client_call(ask("read", at("a"), ",\"offset\":100"));
  check(o->type == FRAME_REPLY && o->out.len == RECORD_BYTES, "file: beyond the end");
  fails(client_call(ask("read", at("none"), "")), "file_not_found", "no such file");
  fails(client_call(ask("read", at("new"), "")), "is_a_directory", "reading a directory");
  fails(client_call(ask("read", at("a/b"), "")), "not_a_directory", "below a file");
  fails(client_call(ask("read", "L2Rldi96ZXJv", "")), "not_a_file", "a device");
  char path[512];
  snprintf(path, sizeof path, "%.200s/fifo", agent_root());
  mkfifo(path, 0600);
  fails(client_call(ask("read", at("fifo"), "")), "not_a_file", "a pipe");
  o = client_call(ask("read", "L3Byb2Mvc2VsZi9jbWRsaW5l", ""));
  check(o->type == FRAME_REPLY && o->out.len > RECORD_BYTES, "file: /proc has no length");
  check(le32(buf_head(&o->out) + 12) == 0, "file: and says so");
}

static void links(void) {
  char link[512];
  snprintf(link, sizeof link, "%.200s/link", agent_root());
  check(symlink("a", link) == 0, "a link");
  check(holds("link", "three"), "file: a link is followed by a read");
  struct outcome *o = client_call(ask("stat", at("link"), ""));
  check(o->out.len == RECORD_BYTES + 1 && S_ISLNK(le32(buf_head(&o->out))), "file: stat of a link");
  o = client_call(ask("stat", at("link"), ",\"follow\":true"));
  check(o->out.len == RECORD_BYTES && S_ISREG(le32(buf_head(&o->out))), "file: stat through it");
  put("link", "four", "");
  check(holds("a", "four"), "file: a write goes to what the link leads to");
  o = client_call(ask("remove", at("link"), ""));
  check(o->type == FRAME_REPLY && holds("a", "four"), "file: a remove takes the link alone");
  check(symlink("nowhere", link) == 0, "a link to nothing");
  fails(put("link", "x", ""), "file_not_found", "a link to nothing");
}

static void trees(void) {
  fails(client_call(ask("mkdir", at("new"), "")), "file_exists", "a directory that is there");
  check(client_call(ask("mkdir", at("new/x/y"), ",\"parents\":true,\"mode\":448"))->type ==
            FRAME_REPLY && mode_of("new/x/y") == 0700, "file: mkdir with parents and mode");
  fails(client_call(ask("remove", at("new"), "")), "not_empty", "a directory with entries");
  char more[1200];
  snprintf(more, sizeof more, ",\"to_b64\":\"%s\"", at("moved"));
  check(client_call(ask("rename", at("new"), more))->type == FRAME_REPLY, "file: rename");
  check(client_call(ask("remove", at("moved"), ",\"recursive\":true"))->type == FRAME_REPLY,
        "file: remove a tree");
  fails(client_call(ask("list", at("moved"), "")), "file_not_found", "which is gone");
  fails(client_call(ask("remove", "Lw==", ",\"recursive\":true")), "denied", "not the root");
  put("b\xff", "x", "");
  struct outcome *o = client_call(ask("list", at("."), ""));
  check(memmem(buf_head(&o->out), o->out.len, "b\xff", 2) != NULL, "file: a name is bytes");
}

static void mistakes(void) {
  fails(client_call(ask("eat", at("a"), "")), "bad_request", "no such action");
  fails(client_call(ask("read", "", "")), "bad_request", "no path");
  fails(client_call(ask("read", "YQBi", "")), "bad_request", "a path with a NUL");
  fails(client_call(ask("read", at("a"), ",\"offset\":-1")), "bad_request", "a negative offset");
  fails(client_call(ask("read", at("a"), ",\"user\":\"nobody-here\"")), "bad_user", "no such user");
}

void agent_file(void) {
  agent_start(0);
  check(client_attach(), "attach");
  writes();
  cuts();
  reads();
  links();
  trees();
  mistakes();
  check(agent_stop(), "the agent ends well");
}
