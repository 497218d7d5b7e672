#include "hooks.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base.h"
#include "files.h"
#include "job.h"
#include "json.h"
#include "bounds.h"

#define HOOKS_DIR "/etc/forkd/fork.d"

static struct {
  char *names[HOOKS_MAX];
  size_t count;
  size_t next;
  bool listed;
  uint64_t generation;
  struct buf result;
  struct jw writer;
  struct buf detail;
  void (*done)(const char *json, size_t len);
} hooks;

static void run_next(void);

static int by_name(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

void hooks_list(void) {
  char path[PATH_BYTES_MAX];
  DIR *dir = files_path(HOOKS_DIR, path) ? opendir(path) : NULL;
  while (hooks.next < hooks.count) free(hooks.names[hooks.next++]);
  hooks.count = hooks.next = 0;
  hooks.listed = true;
  if (!dir) return;
  for (struct dirent *e; hooks.count < HOOKS_MAX && (e = readdir(dir));) {
    struct stat st;
    if (e->d_name[0] == '.' || fstatat(dirfd(dir), e->d_name, &st, 0) < 0) continue;
    if (!S_ISREG(st.st_mode) || !(st.st_mode & 0111)) continue;
    hooks.names[hooks.count++] = xstrdup(e->d_name);
  }
  closedir(dir);
  qsort(hooks.names, hooks.count, sizeof *hooks.names, by_name);
}

static void record(bool ok, const char *detail) {
  char *name = hooks.names[hooks.next];
  jw_open(&hooks.writer, NULL, '{');
  jw_string(&hooks.writer, "name", name);
  jw_bool(&hooks.writer, "ok", ok);
  if (*detail) jw_string(&hooks.writer, "detail", detail);
  jw_close(&hooks.writer, '}');
  free(name);
  hooks.next++;
}

static size_t room(void *arg) {
  (void)arg;
  return SIZE_MAX;
}

static void output(void *arg, int which, const uint8_t *data, size_t len) {
  (void)arg;
  (void)which;
  buf_add_tail(&hooks.detail, data, len, HOOK_DETAIL_BYTES);
}

static void on_done(void *arg, const struct job_result *r) {
  (void)arg;
  char text[64] = "";
  if (r->timed_out) {
    snprintf(text, sizeof text, "killed after %d ms: ", HOOK_TIMEOUT_MS);
  } else if (r->signal) {
    snprintf(text, sizeof text, "%s: ", signal_name(r->signal));
  } else if (r->exit_code) {
    snprintf(text, sizeof text, "exit code %d: ", r->exit_code);
  }
  char detail[HOOK_DETAIL_BYTES + 80];
  snprintf(detail, sizeof detail, "%s%s", text, buf_text(&hooks.detail));
  record(!*text, detail);
  run_next();
}

static bool start(const char *name) {
  char file[512];
  char path[PATH_BYTES_MAX];
  snprintf(file, sizeof file, HOOKS_DIR "/%.255s", name);
  files_path(file, path);
  char *argv[] = {path, NULL};
  struct env env;
  struct user root;
  char generation[32];
  if (base_command(NULL, "0", &env, &root)) {
    record(false, "no environment");
    return false;
  }
  snprintf(generation, sizeof generation, "%llu", (unsigned long long)hooks.generation);
  env_set(&env, "FORKD_GENERATION", generation);
  if (geteuid() != 0) root.uid = geteuid();
  struct spawn what = {.argv = argv, .env = &env, .cwd = "/", .user = &root,
                       .cell = CELL_HOOKS};
  struct job_sink sink = {.room = room, .output = output, .done = on_done};
  struct spawn_error error;
  bool ok = job_start(&what, false, HOOK_TIMEOUT_MS, &sink, &error) != NULL;
  if (!ok) {
    char text[400];
    spawn_error_text(&error, &what, text, sizeof text);
    record(false, text);
  }
  env_free(&env);
  return ok;
}

static void run_next(void) {
  while (hooks.next < hooks.count) {
    buf_clear(&hooks.detail);
    if (start(hooks.names[hooks.next])) return;
  }
  jw_close(&hooks.writer, ']');
  void (*done)(const char *, size_t) = hooks.done;
  if (hooks.result.overflow) {
    done("[]", 2);
  } else {
    done(buf_text(&hooks.result), hooks.result.len);
  }
}

void hooks_run(uint64_t generation, void (*done)(const char *json, size_t len)) {
  hooks.generation = generation;
  hooks.done = done;
  buf_free(&hooks.result);
  buf_free(&hooks.detail);
  buf_init(&hooks.result, FRAME_PAYLOAD_BYTES_MAX / 2);
  buf_init(&hooks.detail, HOOK_DETAIL_BYTES);
  jw_init(&hooks.writer, &hooks.result);
  jw_open(&hooks.writer, NULL, '[');
  if (!hooks.listed) hooks_list();
  hooks.listed = false;
  run_next();
}
