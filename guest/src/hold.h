/* The hold: every process of the guest but the agent stands still, from an instant before a capture
 * to the thaw in the guest that goes on, and to the identity in the one that is forked. */
#ifndef FORKD_HOLD_H
#define FORKD_HOLD_H

#include <stdbool.h>
#include <stdint.h>

/* What becomes of a hold that has begun; not told once hold_keep was called. */
enum hold_news {
  HOLD_SETTLED, /* all stand still */
  HOLD_STUCK,   /* a process did not stop in HOLD_STOP_MS: it is over */
  HOLD_EXPIRED, /* nobody ended it in time: it is over */
};

/* From its begin to its end. Nothing new may be started. */
bool hold_is_on(void);
/* Milliseconds until the hold would have ended by itself; 0 without one. */
uint64_t hold_left_ms(void);
/* What waited for the end of a hold is done by `after`, in each hold_end. */
void hold_ends_by(void (*after)(void));
/* NULL, and later `tell` is called from the loop, or why nothing can be held. It ends by itself
 * `max_ms` after it has settled. */
const char *hold_begin(uint64_t max_ms, void (*tell)(enum hold_news news));
/* A host attached: this may be a fork. The hold, if there is one, now stays until `thaw` or
 * `identity`, and nobody waits for its answer. False without one. */
bool hold_keep(void);
/* Everything runs again, and what waited for that is done. */
void hold_end(void);

#endif
