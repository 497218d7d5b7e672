#include <stdlib.h>
#include <string.h>

#include "channel.h"
#include "eval.h"
#include "execs.h"
#include "session.h"

/* Credit goes back when this much was taken, or when nothing is left to take. */
#define CREDIT_PIECE_BYTES 32768

static struct stream *streams;
static unsigned open_count;

struct stream *stream_find(uint32_t id) {
  for (struct stream *s = streams; s; s = s->next) {
    if (s->ticket.stream == id) return s;
  }
  return NULL;
}

struct stream *stream_open(struct ticket ticket) {
  if (open_count == STREAMS_MAX) {
    reply_error(ticket, "too_many_streams", "%d streams are open already", STREAMS_MAX);
    return NULL;
  }
  if (ticket.stream == 0 || stream_find(ticket.stream)) {
    reply_error(ticket, "bad_request", "stream %u is not free", ticket.stream);
    return NULL;
  }
  struct stream *s = xalloc(sizeof *s);
  s->ticket = ticket;
  s->credit = s->in_credit = STREAM_CREDIT_BYTES;
  buf_init(&s->code, EVAL_CODE_BYTES_MAX);
  s->next = streams;
  streams = s;
  open_count++;
  return s;
}

void stream_close(struct stream *stream) {
  for (struct stream **at = &streams; *at; at = &(*at)->next) {
    if (*at != stream) continue;
    *at = stream->next;
    open_count--;
    buf_free(&stream->code);
    free(stream);
    return;
  }
}

size_t stream_room(const struct stream *s) {
  size_t room = channel_room();
  return room < s->credit ? room : s->credit;
}

void stream_output(struct stream *s, int which, const uint8_t *data, size_t len) {
  s->credit -= (uint32_t)len;
  channel_frame(which == 1 ? FRAME_STDOUT : FRAME_STDERR, s->ticket.stream, data, len);
}

void stream_took(struct stream *s, size_t len, bool flush) {
  s->in_owed += (uint32_t)len;
  if (s->in_owed == 0 || (s->in_owed < CREDIT_PIECE_BYTES && !flush)) return;
  uint8_t word[4];
  put_le32(word, s->in_owed);
  s->in_credit += s->in_owed;
  s->in_owed = 0;
  channel_frame(FRAME_WINDOW, s->ticket.stream, word, sizeof word);
}

/* May end and free the stream. */
void stream_resume(struct stream *s) {
  if (s->job) {
    job_resume(s->job);
  } else if (s->exec) {
    exec_resume(s->exec);
  } else if (s->eval) {
    eval_resume(s->eval);
  }
}

void session_resume(void) {
  uint32_t ids[STREAMS_MAX];
  unsigned n = 0;
  for (struct stream *s = streams; s; s = s->next) ids[n++] = s->ticket.stream;
  while (n > 0) {
    struct stream *s = stream_find(ids[--n]);
    if (s) stream_resume(s);
  }
}

void streams_detach(void) {
  while (streams) {
    struct stream *s = streams;
    if (s->job) job_detach(s->job);
    if (s->eval) eval_detach(s->eval);
    if (s->exec) exec_abandon(s->exec);
    stream_close(s);
  }
}
