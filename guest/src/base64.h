/* Standard base64 (RFC 4648, with padding). */
#ifndef FORKD_BASE64_H
#define FORKD_BASE64_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Decodes strictly: padding required, no white space. Returns the byte count, or -1. */
ssize_t base64_decode(const char *text, size_t len, uint8_t *out, size_t out_max);

#endif
