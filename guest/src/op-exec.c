#include "command.h"
#include "session.h"

static size_t room(void *arg) { return stream_room(arg); }

static void output(void *arg, int which, const uint8_t *data, size_t len) {
  stream_output(arg, which, data, len);
}

static void took(void *arg, size_t len) { stream_took(arg, len, true); }

static void done(void *arg, const struct job_result *r) {
  struct stream *s = arg;
  job_result_fields(reply_begin(), r);
  reply_send(s->ticket, FRAME_REPLY);
  stream_close(s);
}

void exec_stdin(struct stream *s, const uint8_t *data, size_t len) {
  if (len == 0) {
    job_close_stdin(s->job);
  } else {
    /* Cannot overflow: the queue is as large as the credit. */
    job_write(s->job, data, len);
  }
}

static void start(struct stream *s, struct command *command) {
  struct job_sink sink = {room, output, took, done, s};
  s->job = command_start(command, &sink, s->ticket);
  if (!s->job) {
    stream_close(s);
    return;
  }
  struct jw *w = reply_begin();
  jw_string(w, "event", "started");
  jw_int(w, "pid", job_pid(s->job));
  reply_send(s->ticket, FRAME_EVENT);
}

void op_exec(struct ticket ticket, const struct json *request) {
  const struct json *tty = json_get(request, "tty");
  if (tty && tty->type == JSON_BOOL && tty->boolean) {
    reply_error(ticket, "bad_request", "exec: only exec_start gives a command a tty");
    return;
  }
  struct command command;
  if (!command_parse(ticket, request, &command)) return;
  struct stream *s = stream_open(ticket);
  if (s) start(s, &command);
  command_free(&command);
}
