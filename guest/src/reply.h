/* Answers to the requests of the host, and whose session they belong to. */
#ifndef FORKD_REPLY_H
#define FORKD_REPLY_H

#include <stdint.h>

#include "json.h"

/* Where an answer goes. Answers to an ended session are dropped. */
struct ticket {
  uint32_t stream;
  uint64_t session;
};

/* For a request of the session that there is. */
struct ticket reply_ticket(uint32_t stream);
/* The session is over: what its tickets are still answered is dropped. */
void reply_session_over(void);

/* A reply is written between begin and send; one at a time. */
struct jw *reply_begin(void);
void reply_send(struct ticket ticket);
/* Instead of reply_send: it is an event, the reply comes later. */
void reply_event(struct ticket ticket);
/* A reply without members. */
void reply_empty(struct ticket ticket);
void reply_error(struct ticket ticket, const char *code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
