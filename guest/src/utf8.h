/* UTF-8, as strict as JSON wants it. */
#ifndef FORKD_UTF8_H
#define FORKD_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Length of the valid UTF-8 sequence at `p` (1 to 4), or 0. */
size_t utf8_length(const uint8_t *p, size_t left);

#endif
