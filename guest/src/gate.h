/* The gate: closed from a freeze until the guest has an identity of its own. */
#ifndef FORKD_GATE_H
#define FORKD_GATE_H

#include <stdbool.h>
#include <stdint.h>

bool gate_is_open(void);
void gate_open(void);
void gate_close(void);
/* Counts the closings, so that slow work can see that one happened in between. */
uint64_t gate_closings(void);

#endif
