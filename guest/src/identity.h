/* `identity`: makes a forked guest one of its kind, then opens the gate. */
#ifndef FORKD_IDENTITY_H
#define FORKD_IDENTITY_H

#include <stdbool.h>
#include <stdint.h>

/* Test mode: no system call that would change this machine; the reply says `simulated`. */
void identity_simulate(void);
/* Of the last `identity`; 0 before the first. */
uint64_t identity_generation(void);

/* Before a freeze: gets ready what a fork would otherwise do in every child. */
void identity_prepare(void);

#endif
