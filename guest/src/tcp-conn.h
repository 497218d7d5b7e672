/* One connection of the TCP door. */
#ifndef FORKD_TCP_CONN_H
#define FORKD_TCP_CONN_H

#include "buf.h"
#include "job.h"
#include "json.h"

struct conn;

/* What a connection is for. */
struct conn_owner {
  void (*request)(struct conn *c, const struct json *request); /* answers it, now or later */
  void (*closed)(void);                                        /* one is gone */
};

void conn_open(int fd, const struct conn_owner *owner);
/* A hold is over: the requests that came meanwhile are served. */
void conns_resume(void);

/* Answers: the reply's members are written between conn_reply and conn_send. */
struct jw *conn_reply(struct conn *c);
void conn_send(struct conn *c);
void conn_error(struct conn *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The connection now waits for work, whose listener must be forgotten when it closes early. */
void conn_wait(struct conn *c, void (*forget)(void *work), void *work);

#endif
