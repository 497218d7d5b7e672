/* One connection of the TCP door. */
#ifndef FORKD_TCP_CONN_H
#define FORKD_TCP_CONN_H

#include "buf.h"
#include "job.h"
#include "json.h"

struct conn;

void conn_open(int fd);
/* From tcp.c: a connection is gone. */
void tcp_conn_closed(void);

/* Answers (tcp-ops.c): the reply's members are written between begin and end. */
struct jw *conn_reply(struct conn *c);
void conn_send(struct conn *c);
void conn_error(struct conn *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The connection now waits for work, whose listener must be forgotten when it closes early. */
void conn_wait(struct conn *c, void (*forget)(void *work), void *work);
void conn_dispatch(struct conn *c, const struct json *request);

#endif
