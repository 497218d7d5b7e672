/* What clients of the TCP door ask for. */
#ifndef FORKD_TCP_OPS_H
#define FORKD_TCP_OPS_H

#include "tcp-conn.h"

/* Does what the request says and answers, now or later. */
void tcp_request(struct conn *conn, const struct json *request);

#endif
