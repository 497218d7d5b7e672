/* Frames of the host that wait for the end of a hold, in order. */
#ifndef FORKD_DEFERRED_H
#define FORKD_DEFERRED_H

#include <stdbool.h>

#include "frame.h"

/* Whether a frame of this stream waits, so that later ones must too. */
bool deferred_has(uint32_t stream);
/* False when it would be too much. */
bool deferred_add(const struct frame *f);
/* Hands the frames on, in order; those that `take` defers again wait again. */
void deferred_replay(void (*take)(const struct frame *f));
void deferred_clear(void);

#endif
