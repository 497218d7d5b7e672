/* Open streams: what requests have started and the session shows, with credit both ways. */
#ifndef FORKD_STREAM_H
#define FORKD_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "reply.h"

struct stream;

/* What a stream shows takes what comes for it. Each may be NULL: nothing happens then. */
struct stream_kind {
  /* Never more than was credited; `len` 0 is the end. */
  void (*input)(struct stream *stream, const uint8_t *data, size_t len);
  /* 1 to 64; 0 stands for a number that no signal has. */
  void (*signal)(struct stream *stream, int number);
  /* There is room for output; may end and free the stream. */
  void (*resume)(struct stream *stream);
  /* The session is over and the stream about to go: the work goes on without a listener. */
  void (*detach)(struct stream *stream);
};

struct stream {
  struct stream *next;
  struct ticket ticket;
  uint32_t credit;    /* output that the host still takes */
  uint32_t in_credit; /* input that the host may still send */
  uint32_t in_owed;   /* taken, not yet given back as credit */
  const struct stream_kind *kind;
  void *work;      /* of the kind: what is shown */
  struct buf kept; /* of the kind: its own until the stream closes */
};

/* NULL, with the error sent, when STREAMS_MAX are open or the number is taken. What comes for it is
 * dropped until stream_serve. */
struct stream *stream_open(struct ticket ticket);
/* What the stream shows from now on; NULL: nothing. */
void stream_serve(struct stream *stream, const struct stream_kind *kind, void *work);
/* Nothing when the end of its session has closed it already. */
void stream_close(struct stream *stream);
struct stream *stream_find(uint32_t id);
/* The session is over: every stream is detached and closed. */
void streams_detach(void);
/* The channel has room again: streams go on. */
void streams_resume(void);

/* From the host. False when it is more than was credited. */
bool stream_input(struct stream *stream, const uint8_t *data, size_t len);
/* The host takes `more` bytes of output. */
void stream_window(struct stream *stream, uint32_t more);
void stream_signal(struct stream *stream, uint32_t number);

/* To the host: how much may be said now, and one piece of it on descriptor 1 or 2. */
size_t stream_room(const struct stream *stream);
void stream_output(struct stream *stream, int which, const uint8_t *data, size_t len);
/* The input was consumed; credit goes back in pieces worth a frame. */
void stream_took(struct stream *stream, size_t len, bool flush);

#endif
