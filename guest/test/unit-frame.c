#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frame.h"
#include "tap.h"
#include "unit.h"

static struct {
  int attached;
  int frames;
  int broken;
  struct frame last;
  uint8_t payload[64];
} seen;

static void on_attached(void *arg) {
  (void)arg;
  seen.attached++;
}

static void on_frame(void *arg, const struct frame *f) {
  (void)arg;
  seen.frames++;
  seen.last = *f;
  memcpy(seen.payload, f->payload, f->length < 64 ? f->length : 64);
}

static void on_broken(void *arg, const char *why) {
  (void)arg;
  (void)why;
  seen.broken++;
}

static struct wire *fresh(void) {
  static const struct wire_handler on = {on_attached, on_frame, on_broken, NULL};
  static struct wire *w;
  if (!w) w = malloc(sizeof *w);
  wire_init(w, &on);
  memset(&seen, 0, sizeof seen);
  return w;
}

static void token(struct wire *w) { wire_read(w, (const uint8_t *)FIRST_TOKEN, TOKEN_BYTES); }

static void frame_of(struct wire *w, uint8_t type, const void *payload, uint32_t len) {
  uint8_t header[FRAME_HEADER_BYTES];
  frame_header(header, type, 7, len);
  wire_read(w, header, sizeof header);
  wire_read(w, payload, len);
}

static void whole_and_pieces(void) {
  struct wire *w = fresh();
  frame_of(w, FRAME_STDIN, "before", 6);
  check(seen.frames == 0, "frames before a token are dropped");
  token(w);
  check(seen.attached == 1, "the token attaches");
  frame_of(w, FRAME_STDIN, "hello", 5);
  check(seen.frames == 1 && seen.last.type == FRAME_STDIN && seen.last.stream == 7 &&
            seen.last.length == 5 && memcmp(seen.payload, "hello", 5) == 0,
        "a frame arrives whole");
  uint8_t bytes[FRAME_HEADER_BYTES + 3];
  frame_header(bytes, FRAME_REQUEST, 9, 3);
  memcpy(bytes + FRAME_HEADER_BYTES, "abc", 3);
  for (size_t i = 0; i < sizeof bytes; i++) wire_read(w, bytes + i, 1);
  check(seen.frames == 2 && seen.last.stream == 9, "a frame arrives byte by byte");
  frame_of(w, FRAME_STDIN, "", 0);
  check(seen.frames == 3 && seen.last.length == 0, "an empty frame arrives");
}

static void bounds(void) {
  struct wire *w = fresh();
  static uint8_t big[FRAME_PAYLOAD_BYTES_MAX];
  token(w);
  frame_of(w, FRAME_STDIN, big, sizeof big);
  check(seen.frames == 1 && seen.broken == 0, "a frame at the bound is taken");
  frame_of(w, FRAME_STDIN, big, FRAME_PAYLOAD_BYTES_MAX);
  uint8_t header[FRAME_HEADER_BYTES];
  frame_header(header, FRAME_STDIN, 7, FRAME_PAYLOAD_BYTES_MAX + 1);
  wire_read(w, header, sizeof header);
  check(seen.broken == 1, "a frame over the bound ends the session");
  frame_of(w, FRAME_STDIN, "x", 1);
  check(seen.frames == 2, "nothing is taken after that");
  token(w);
  frame_of(w, FRAME_STDIN, "x", 1);
  check(seen.attached == 2 && seen.frames == 3, "a token begins anew");
  frame_header(header, FRAME_STDIN, 7, 1);
  header[6] = 1;
  wire_read(w, header, sizeof header);
  check(seen.broken == 2, "reserved bytes must be zero");
}

static void tokens_inside(void) {
  struct wire *w = fresh();
  token(w);
  uint8_t header[FRAME_HEADER_BYTES];
  frame_header(header, FRAME_STDIN, 7, 1000);
  wire_read(w, header, sizeof header);
  wire_read(w, (const uint8_t *)"FORKD-FORKD-ATT", 15);
  token(w);
  check(seen.attached == 2 && seen.frames == 0, "a token inside a frame drops it");
  frame_of(w, FRAME_STDIN, "y", 1);
  check(seen.frames == 1, "and the next frame is read from its start");
  static const uint8_t periodic[TOKEN_BYTES] = "abababababababac";
  wire_set_token(w, periodic);
  wire_read(w, (const uint8_t *)"ababababababababac", 18);
  check(seen.attached == 3, "a token that overlaps itself is found");
  token(w);
  check(seen.attached == 3, "an old token means nothing");
}

void unit_frame(void) {
  whole_and_pieces();
  bounds();
  tokens_inside();
}
