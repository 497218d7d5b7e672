/* `identity`: makes a forked guest one of its kind, then opens the gate. */
#ifndef FORKD_IDENTITY_H
#define FORKD_IDENTITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Test mode: no system call that would change this machine; the reply says `simulated`. */
void identity_simulate(void);
/* Of the last `identity`; 0 before the first. */
uint64_t identity_generation(void);

/* System side (identity-sys.c): NULL, or what failed. */
const char *system_entropy(const uint8_t *bytes, size_t len);
const char *system_clock(int64_t wall_ns);
const char *system_hostname(const char *name);
int64_t wall_clock_ns(void);

/* Runs /etc/forkd/fork.d (hooks.c); `done` gets a JSON array of {name, ok, detail?}. */
/* Before a freeze: gets ready what a fork would otherwise do in every child. */
void identity_prepare(void);
/* Opens what system_entropy writes to, once. */
void system_entropy_open(void);
/* Looks up what hooks_run will run, before a fork, which then need not. */
void hooks_list(void);
void hooks_run(void (*done)(const char *json, size_t len));

#endif
