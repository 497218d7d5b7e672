/* What one action on the guest's files does, in a process of its own (op-file.c starts it). */
#ifndef FORKD_FILE_WORKER_H
#define FORKD_FILE_WORKER_H

/* The word that makes the agent's program a worker instead of an agent. */
#define FILE_WORKER_WORD "--file"

/* Does what the words say and returns the exit code: 0, or 1 with "CODE MESSAGE" on standard error.
 * Standard input ends early when nobody wants the result any more. */
int file_worker(int argc, char **argv);

#endif
