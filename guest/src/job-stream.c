#include "job-stream.h"

static size_t room(void *arg) { return stream_room(arg); }

static void output(void *arg, int which, const uint8_t *data, size_t len) {
  stream_output(arg, which, data, len);
}

static void took(void *arg, size_t len) { stream_took(arg, len, true); }

struct job_sink job_stream_sink(struct stream *s,
                                void (*done)(void *stream, const struct job_result *result)) {
  return (struct job_sink){room, output, took, done, s};
}

static void on_input(struct stream *s, const uint8_t *data, size_t len) {
  if (len == 0) {
    job_close_stdin(s->work);
  } else {
    /* Cannot overflow: the queue is as large as the credit. */
    job_write(s->work, data, len);
  }
}

static void on_signal(struct stream *s, int number) {
  if (number) job_signal(s->work, number);
}

static void on_resume(struct stream *s) { job_resume(s->work); }

static void on_detach(struct stream *s) { job_detach(s->work); }

void job_stream_serve(struct stream *s, struct job *job) {
  static const struct stream_kind kind = {on_input, on_signal, on_resume, on_detach};
  stream_serve(s, &kind, job);
}
