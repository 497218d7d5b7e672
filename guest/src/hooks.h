/* The programs of /etc/forkd/fork.d, which a fork runs once it is one of its kind. */
#ifndef FORKD_HOOKS_H
#define FORKD_HOOKS_H

#include <stddef.h>
#include <stdint.h>

/* Looks up what hooks_run will run, before a fork, which then need not. */
void hooks_list(void);
/* Runs them one after the other, each told the generation; `done` gets a JSON array of
 * {name, ok, detail?}. */
void hooks_run(uint64_t generation, void (*done)(const char *json, size_t len));

#endif
