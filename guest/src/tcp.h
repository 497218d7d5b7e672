/* The TCP door: one connection, one line of JSON in, one out. */
#ifndef FORKD_TCP_H
#define FORKD_TCP_H

#include <stdbool.h>

/* Listens; a failure is logged and leaves the door shut. */
void tcp_start(unsigned port);
void tcp_accept(bool on);
/* A hold is over: the requests that came meanwhile are served. */
void tcp_resume(void);

#endif
