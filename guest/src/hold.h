/* The hold: every process of the guest but the agent stands still, from an instant before a capture
 * to the thaw in the guest that goes on, and to the identity in the one that is forked. */
#ifndef FORKD_HOLD_H
#define FORKD_HOLD_H

#include <stdbool.h>
#include <stdint.h>

/* From the request to the thaw. Nothing new may be started. */
bool hold_is_on(void);
/* Milliseconds until the hold would have ended by itself; 0 without one. */
uint64_t hold_left_ms(void);
/* A host attached: this may be a fork. The hold now stays until `thaw` or `identity`. */
void hold_attached(void);
/* Everything runs again, and what waited for that is done. */
void hold_end(void);

#endif
