/* The byte stream of the channel: attach tokens and frames (docs/guest-protocol.md). */
#ifndef FORKD_FRAME_H
#define FORKD_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bounds.h"

enum frame_type {
  FRAME_REQUEST = 1,
  FRAME_REPLY = 2,
  FRAME_ERROR = 3,
  FRAME_EVENT = 4,
  FRAME_STDIN = 5,
  FRAME_STDOUT = 6,
  FRAME_STDERR = 7,
  FRAME_WINDOW = 8,
  FRAME_SIGNAL = 9,
};

struct frame {
  uint8_t type;
  uint32_t stream;
  const uint8_t *payload;
  uint32_t length;
};

struct wire_handler {
  void (*attached)(void *arg); /* the current token was seen */
  void (*frame)(void *arg, const struct frame *frame);
  void (*broken)(void *arg, const char *why); /* after it only a token is looked for */
  void *arg;
};

struct wire {
  struct wire_handler on;
  uint8_t token[TOKEN_BYTES];
  uint8_t failure[TOKEN_BYTES]; /* of the token, for matching in one pass */
  size_t matched;
  bool scanning; /* no session: everything but a token is dropped */
  size_t have;
  uint8_t data[FRAME_HEADER_BYTES + FRAME_PAYLOAD_BYTES_MAX];
};

void wire_init(struct wire *w, const struct wire_handler *on);
void wire_set_token(struct wire *w, const uint8_t token[TOKEN_BYTES]);
/* Ends the session: drops the half-read frame and looks for a token only. */
void wire_scan(struct wire *w);
void wire_read(struct wire *w, const uint8_t *data, size_t len);

void frame_header(uint8_t out[FRAME_HEADER_BYTES], uint8_t type, uint32_t stream, uint32_t length);
uint32_t le32(const uint8_t *p);
void put_le32(uint8_t *p, uint32_t v);

#endif
