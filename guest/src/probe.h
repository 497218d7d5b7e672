/* Readiness of a warm-up command: a port, a file, or a line of its output. */
#ifndef FORKD_PROBE_H
#define FORKD_PROBE_H

#include <stdbool.h>

#include "buf.h"
#include "json.h"

/* PROBE_NONE: was seen, nothing more to look for. */
enum probe_kind { PROBE_EXIT, PROBE_NONE, PROBE_TCP, PROBE_FILE, PROBE_LINE, PROBE_READY_JSON };

struct probe {
  enum probe_kind kind;
  unsigned port;
  char *text; /* file or line */
  struct buf line[2];
};

/* From `ready` of a request (absent: wait for exit code 0); false when malformed. */
bool probe_parse(struct probe *p, const struct json *ready);
/* Starts asking for a port or file; calls `ready` once. Others only see probe_output. */
void probe_start(struct probe *p, void (*ready)(void));
void probe_stop(struct probe *p);
/* Output of the command; true when it holds the awaited line. */
bool probe_output(struct probe *p, int which, const uint8_t *data, size_t len);

#endif
