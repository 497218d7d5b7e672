#include "execs.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "channel.h"
#include "ring.h"
#include "utf8.h"

struct exec {
  struct exec *next; /* the newest first */
  char id[EXEC_ID_BYTES_MAX + 1];
  char title[EXEC_TITLE_BYTES_MAX + 1];
  pid_t pid;
  bool tty;
  bool forgotten;
  int64_t started_unix;
  struct job *job; /* NULL once it has ended */
  struct job_result result;
  struct ring ring;
  struct stream *stream; /* who is shown it, or NULL */
  uint64_t sent;         /* of the ring's offsets, to that stream */
};

static struct exec *execs;

struct exec *exec_find(const char *id) {
  for (struct exec *e = execs; e; e = e->next) {
    if (strcmp(e->id, id) == 0 && !e->forgotten) return e;
  }
  return NULL;
}

static void drop(struct exec *exec) {
  struct exec **at = &execs;
  while (*at != exec) at = &(*at)->next;
  *at = exec->next;
  ring_free(&exec->ring);
  free(exec);
}

/* Drops the oldest of those that have ended and that nobody looks at, when there are too many. */
static void drop_oldest(void) {
  struct exec *oldest = NULL;
  unsigned ended = 0;
  for (struct exec *e = execs; e; e = e->next) {
    if (e->job || e->stream) continue;
    ended++;
    oldest = e;
  }
  if (ended > EXECS_ENDED_MAX) drop(oldest);
}

/* Tells of its end once all output was shown; may free it. */
static void settle(struct exec *e) {
  if (e->job || (e->stream && e->sent < e->ring.end)) return;
  struct stream *s = e->stream;
  struct job_result result = e->result;
  e->stream = NULL;
  if (e->forgotten) {
    drop(e);
  } else {
    drop_oldest();
  }
  if (!s) return;
  stream_serve(s, NULL, NULL);
  job_result_fields(reply_begin(), &result);
  reply_send(s->ticket);
  stream_close(s);
}

/* Without a stream everything is read, and the ring keeps the end of it. With one the command
 * waits until the stream has had what was before. */
static size_t room(void *arg) {
  struct exec *e = arg;
  if (!e->stream) return SIZE_MAX;
  return e->sent < e->ring.end ? 0 : stream_room(e->stream);
}

static void output(void *arg, int which, const uint8_t *data, size_t len) {
  struct exec *e = arg;
  ring_add(&e->ring, (uint8_t)which, data, len);
  if (!e->stream) return;
  e->sent = e->ring.end;
  stream_output(e->stream, which, data, len);
}

static void took(void *arg, size_t len) {
  struct exec *e = arg;
  if (e->stream) stream_took(e->stream, len, true);
}

static void done(void *arg, const struct job_result *r) {
  struct exec *e = arg;
  e->job = NULL;
  e->result = *r;
  settle(e);
}

static void resume(struct exec *e) {
  while (e->stream && e->sent < e->ring.end) {
    size_t left = stream_room(e->stream);
    uint8_t which = 0;
    const uint8_t *data;
    size_t len = ring_at(&e->ring, e->sent, &which, &data);
    if (len > left) len = left;
    if (len > OUTPUT_CHUNK_BYTES) len = OUTPUT_CHUNK_BYTES;
    if (len == 0) return;
    e->sent += len;
    stream_output(e->stream, which, data, len);
    /* The end of a session abandons all execs: this one may be gone. */
    if (!channel_live()) return;
  }
  if (e->job) {
    job_resume(e->job);
  } else {
    settle(e);
  }
}

/* The first word, cut between two characters. */
static void set_title(struct exec *e, const char *word) {
  size_t len = 0;
  size_t whole = strlen(word);
  while (len < whole) {
    size_t n = utf8_length((const uint8_t *)word + len, whole - len);
    if (n == 0 || len + n > EXEC_TITLE_BYTES_MAX) break;
    len += n;
  }
  memcpy(e->title, word, len);
}

struct exec *exec_begin(const char *id, struct command *command, struct stream *stream) {
  unsigned running = 0;
  for (struct exec *e = execs; e; e = e->next) running += e->job != NULL;
  struct exec *e = NULL;
  if (running >= EXECS_RUNNING_MAX) {
    reply_error(stream->ticket, "busy", "%u commands run already", running);
  } else {
    e = xalloc(sizeof *e);
    const struct job_sink sink = {room, output, took, done, e};
    e->job = command_start(command, &sink, stream->ticket);
  }
  if (!e || !e->job) {
    free(e);
    stream_close(stream);
    return NULL;
  }
  strcpy(e->id, id);
  set_title(e, command->what.argv[0]);
  e->pid = job_pid(e->job);
  e->tty = command->what.tty;
  e->started_unix = time(NULL);
  ring_init(&e->ring);
  e->next = execs;
  execs = e;
  return e;
}

static void told(struct exec *e, const char *why) {
  struct stream *s = e->stream;
  e->stream = NULL;
  reply_error(s->ticket, "detached", "%s", why);
  stream_close(s);
}

static void on_input(struct stream *s, const uint8_t *data, size_t len) {
  struct exec *e = s->work;
  if (!e->job) {
    if (len > 0) stream_took(s, len, true);
  } else if (len == 0) {
    job_close_stdin(e->job);
  } else {
    /* Cannot overflow: the queue is as large as the credit. */
    job_write(e->job, data, len);
  }
}

static void on_signal(struct stream *s, int number) {
  if (number) exec_signal(s->work, number);
}

static void on_resume(struct stream *s) { resume(s->work); }

static void on_detach(struct stream *s) {
  struct exec *e = s->work;
  e->stream = NULL;
  resume(e);
}

static const struct stream_kind shows_exec = {on_input, on_signal, on_resume, on_detach};

void exec_show(struct exec *e, struct stream *stream, uint64_t from) {
  if (e->stream) told(e, "somebody else has attached");
  if (!channel_live()) return;
  uint64_t start = ring_start(&e->ring);
  if (from < start) from = start;
  if (from > e->ring.end) from = e->ring.end;
  e->stream = stream;
  e->sent = from;
  stream_serve(stream, &shows_exec, e);
  /* What an earlier stream sent and the command has not taken is held against this one. */
  if (e->job) stream->in_credit -= (uint32_t)job_queued(e->job);
  struct jw *w = reply_begin();
  jw_string(w, "event", "attached");
  jw_int(w, "pid", e->pid);
  jw_int(w, "from", (int64_t)from);
  jw_int(w, "input_room", stream->in_credit);
  jw_bool(w, "tty", e->tty);
  reply_event(stream->ticket);
  if (channel_live()) resume(e);
}

void exec_leave(struct exec *e, uint32_t stream) {
  if (!e->stream || e->stream->ticket.stream != stream) return;
  told(e, "as was asked for");
  if (channel_live()) resume(e);
}

void exec_signal(struct exec *e, int signal) {
  if (e->job) job_signal(e->job, signal);
}

bool exec_resize(struct exec *e, struct pty_size size) {
  return e->tty && (!e->job || job_resize(e->job, size));
}

void exec_forget(struct exec *e) {
  e->forgotten = true;
  if (e->job) {
    job_signal(e->job, SIGKILL);
  } else {
    settle(e);
  }
}

static void list_one(struct jw *w, const struct exec *e) {
  jw_open(w, NULL, '{');
  jw_string(w, "id", e->id);
  jw_string(w, "command", e->title);
  jw_int(w, "pid", e->pid);
  jw_bool(w, "tty", e->tty);
  jw_bool(w, "attached", e->stream != NULL);
  jw_int(w, "started_unix", e->started_unix);
  jw_int(w, "from", (int64_t)ring_start(&e->ring));
  jw_int(w, "bytes", (int64_t)e->ring.end);
  jw_bool(w, "running", e->job != NULL);
  if (!e->job) job_result_fields(w, &e->result);
  jw_close(w, '}');
}

void execs_list(struct jw *w) {
  for (const struct exec *e = execs; e; e = e->next) {
    if (!e->forgotten) list_one(w, e);
  }
}
