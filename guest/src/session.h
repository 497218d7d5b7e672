/* One session with the host: requests in, replies out, open streams. */
#ifndef FORKD_SESSION_H
#define FORKD_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "frame.h"
#include "job.h"
#include "json.h"

/* Where an answer goes. Answers to an ended session are dropped. */
struct ticket {
  uint32_t stream;
  uint64_t session;
};

struct eval;
struct exec;

/* An open stream: a command, an eval or an exec that is shown. */
struct stream {
  struct stream *next;
  struct ticket ticket;
  uint32_t credit;     /* output that the host still takes */
  uint32_t in_credit;  /* input that the host may still send */
  uint32_t in_owed;    /* taken, not yet given back as credit */
  struct job *job;
  struct eval *eval;
  struct exec *exec;
  struct buf code;     /* of an eval, until it is complete; of a file action, its failure */
  uint64_t code_bytes;
  uint64_t timeout_ms;
};

const struct wire_handler *session_wire(void);
bool session_live(void);
void session_end(void);
/* The channel has room again: streams go on. */
void session_resume(void);
/* A hold is over: the requests that came meanwhile are served. */
void session_replay(void);

/* A reply is written between begin and send; one at a time. */
struct jw *reply_begin(void);
void reply_send(struct ticket ticket, uint8_t type);
void reply_error(struct ticket ticket, const char *code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* NULL, with the error sent, when STREAMS_MAX are open or the number is taken. */
struct stream *stream_open(struct ticket ticket);
void stream_close(struct stream *stream);
struct stream *stream_find(uint32_t id);
void stream_resume(struct stream *stream);
/* The session is over: every command and eval goes on without a listener. */
void streams_detach(void);
size_t stream_room(const struct stream *stream);
void stream_output(struct stream *stream, int which, const uint8_t *data, size_t len);
/* The input was consumed; credit goes back in pieces worth a frame. */
void stream_took(struct stream *stream, size_t len, bool flush);

/* The operations. Each answers its ticket, now or later. */
typedef void op_fn(struct ticket ticket, const struct json *request);
op_fn op_ping, op_identity, op_clock, op_warm, op_freeze, op_thaw, op_exec, op_eval, op_poweroff,
    op_hold, op_file;
op_fn op_exec_start, op_exec_attach, op_exec_list, op_exec_detach, op_exec_signal, op_exec_resize,
    op_exec_forget;
/* Input of an open stream. */
void exec_stdin(struct stream *stream, const uint8_t *data, size_t len);
void eval_stdin(struct stream *stream, const uint8_t *data, size_t len);
/* Replies to `ping`, also behind the TCP door. */
void ping_fields(struct jw *w);

#endif
