#include "stream.h"

#include <stdlib.h>

#include "channel.h"

/* Credit goes back when this much was taken, or when nothing is left to take. */
#define CREDIT_PIECE_BYTES 32768
#define SIGNAL_MAX 64

static struct stream *streams;
static unsigned open_count;
static const struct stream_kind nothing;

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
  s->kind = &nothing;
  s->next = streams;
  streams = s;
  open_count++;
  return s;
}

void stream_serve(struct stream *s, const struct stream_kind *kind, void *work) {
  s->kind = kind ? kind : &nothing;
  s->work = work;
}

void stream_close(struct stream *stream) {
  for (struct stream **at = &streams; *at; at = &(*at)->next) {
    if (*at != stream) continue;
    *at = stream->next;
    open_count--;
    buf_free(&stream->kept);
    free(stream);
    return;
  }
}

bool stream_input(struct stream *s, const uint8_t *data, size_t len) {
  if (len > s->in_credit) return false;
  s->in_credit -= (uint32_t)len;
  if (s->kind->input) s->kind->input(s, data, len);
  return true;
}

static void resume(struct stream *s) {
  if (s->kind->resume) s->kind->resume(s);
}

void stream_window(struct stream *s, uint32_t more) {
  s->credit = more > STREAM_CREDIT_BYTES_MAX - s->credit ? STREAM_CREDIT_BYTES_MAX
                                                         : s->credit + more;
  resume(s);
}

void stream_signal(struct stream *s, uint32_t number) {
  int known = number <= SIGNAL_MAX ? (int)number : 0;
  if (s->kind->signal) s->kind->signal(s, known);
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

void streams_resume(void) {
  uint32_t ids[STREAMS_MAX];
  unsigned n = 0;
  for (struct stream *s = streams; s; s = s->next) ids[n++] = s->ticket.stream;
  while (n > 0) {
    struct stream *s = stream_find(ids[--n]);
    if (s) resume(s);
  }
}

void streams_detach(void) {
  while (streams) {
    struct stream *s = streams;
    if (s->kind->detach) s->kind->detach(s);
    stream_close(s);
  }
}
