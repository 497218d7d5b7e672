/* One session with the host after the other: requests in, answers out. */
#ifndef FORKD_SESSION_H
#define FORKD_SESSION_H

#include <stdbool.h>

/* Serves sessions from the loop, over a channel on `fd`: see channel_start. */
void session_start(int fd, bool ends);

#endif
