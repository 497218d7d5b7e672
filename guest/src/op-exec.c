#include "command.h"
#include "job-stream.h"
#include "op.h"

static void done(void *arg, const struct job_result *r) {
  struct stream *s = arg;
  job_result_fields(reply_begin(), r);
  reply_send(s->ticket);
  stream_close(s);
}

static void start(struct stream *s, struct command *command) {
  struct job_sink sink = job_stream_sink(s, done);
  struct job *job = command_start(command, &sink, s->ticket);
  if (!job) {
    stream_close(s);
    return;
  }
  job_stream_serve(s, job);
  struct jw *w = reply_begin();
  jw_string(w, "event", "started");
  jw_int(w, "pid", job_pid(job));
  reply_event(s->ticket);
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
