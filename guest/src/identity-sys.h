/* What an identity changes in the kernel. Each: NULL, or what failed. */
#ifndef FORKD_IDENTITY_SYS_H
#define FORKD_IDENTITY_SYS_H

#include <stddef.h>
#include <stdint.h>

/* Opens what system_entropy writes to, once. */
void system_entropy_open(void);
const char *system_entropy(const uint8_t *bytes, size_t len);
const char *system_clock(int64_t wall_ns);
const char *system_hostname(const char *name);
int64_t wall_clock_ns(void);

#endif
