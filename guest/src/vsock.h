/* The channel over vsock: the agent listens, each connection of the host takes over the channel. */
#ifndef FORKD_VSOCK_H
#define FORKD_VSOCK_H

#include <stdbool.h>

/* The port in `vsock:PORT`; 0 for any other name of a channel. */
unsigned vsock_port(const char *channel);
/* Listens, and tells the host so by one connection to the same port of its own. Call it after
 * channel_start. Ends the guest when it cannot listen: nothing would ever reach it. */
void vsock_start(unsigned port);
/* Serves a listening socket; `from_host` says whether a connection is the host's. */
void vsock_serve(int listener, bool (*from_host)(int fd));

#endif
