/* `warm`: what later commands start from, and the program or interpreter that is kept warm. */
#ifndef FORKD_WARM_H
#define FORKD_WARM_H

/* "none", "pending", "ready" or "failed". */
const char *warm_state(void);

#endif
