/* Children: who waits for which pid, and orphans that nobody waits for. */
#ifndef FORKD_REAP_H
#define FORKD_REAP_H

#include <sys/types.h>

/* Blocks SIGCHLD for the process and serves it from the loop. */
void reap_init(void);
/* Calls `fn` once with the wait status. Call it before the loop runs again after the spawn. */
void reap_on(pid_t pid, void (*fn)(void *arg, int status), void *arg);
void reap_forget(pid_t pid);

#endif
