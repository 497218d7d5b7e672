/* The descriptor of the channel: bounded writing, edge-triggered waiting, freeze. */
#ifndef FORKD_CHANNEL_H
#define FORKD_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "frame.h"

/* Who speaks over the channel. */
struct channel_owner {
  struct wire_handler wire; /* takes what the host sends */
  void (*lost)(void);       /* the session is over: its host has gone or does not read */
  void (*room)(void);       /* there is room again, after channel_room had none */
};

/* Serves `fd` from the loop; -1 has none yet, see channel_replace. `ends` (tests): the end of input
 * stops the loop; a virtio port reads an end whenever no host is connected, which means nothing. */
void channel_start(int fd, bool ends, const struct channel_owner *owner);
/* Ends the session and drops the descriptor that there was, for a new connection of the host. */
void channel_replace(int fd);

/* Whether a host is attached: else its frames are dropped, and none are sent. */
bool channel_live(void);
void channel_attach(void);
/* Only a token is looked for from now on. */
void channel_detach(void);

void channel_frame(uint8_t type, uint32_t stream, const void *payload, size_t len);
void channel_raw(const void *data, size_t len);
/* How many more bytes of output may be queued now; 0 while held. */
size_t channel_room(void);
/* Writes what is queued now and then nothing until channel_release. */
void channel_hold(void);
void channel_release(void);
/* Drops what is queued (a new session begins). */
void channel_clear(void);
struct wire *channel_wire(void);

#endif
