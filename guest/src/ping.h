/* What a ping is answered, on the channel and behind the TCP door. */
#ifndef FORKD_PING_H
#define FORKD_PING_H

#include "json.h"

/* Adds the members of the answer. */
void ping_fields(struct jw *w);

#endif
