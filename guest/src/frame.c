#include "frame.h"

#include <string.h>

uint32_t le32(const uint8_t *p) {
  return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

void put_le32(uint8_t *p, uint32_t v) {
  for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> (8 * i));
}

void frame_header(uint8_t out[FRAME_HEADER_BYTES], uint8_t type, uint32_t stream, uint32_t length) {
  put_le32(out, length);
  out[4] = type;
  out[5] = out[6] = out[7] = 0;
  put_le32(out + 8, stream);
}

void wire_init(struct wire *w, const struct wire_handler *on) {
  memset(w, 0, sizeof *w);
  w->on = *on;
  w->scanning = true;
  wire_set_token(w, (const uint8_t *)FIRST_TOKEN);
}

void wire_set_token(struct wire *w, const uint8_t token[TOKEN_BYTES]) {
  memcpy(w->token, token, TOKEN_BYTES);
  w->matched = 0;
  /* failure[i]: how much of the token still matches when byte i + 1 does not. */
  w->failure[0] = 0;
  for (size_t i = 1, k = 0; i < TOKEN_BYTES; i++) {
    while (k > 0 && token[i] != token[k]) k = w->failure[k - 1];
    if (token[i] == token[k]) k++;
    w->failure[i] = (uint8_t)k;
  }
}

void wire_scan(struct wire *w) {
  w->scanning = true;
  w->have = 0;
}

static bool token_ends_at(struct wire *w, uint8_t byte) {
  while (w->matched > 0 && byte != w->token[w->matched]) w->matched = w->failure[w->matched - 1];
  if (byte == w->token[w->matched]) w->matched++;
  if (w->matched < TOKEN_BYTES) return false;
  w->matched = 0;
  return true;
}

static void broken(struct wire *w, const char *why) {
  wire_scan(w);
  w->on.broken(w->on.arg, why);
}

/* Takes bytes into the frame being read; hands on each one that is complete. */
static void collect(struct wire *w, const uint8_t *data, size_t len) {
  while (len > 0 && !w->scanning) {
    size_t want = FRAME_HEADER_BYTES;
    if (w->have >= FRAME_HEADER_BYTES) want += le32(w->data);
    size_t n = want - w->have < len ? want - w->have : len;
    memcpy(w->data + w->have, data, n);
    w->have += n;
    data += n;
    len -= n;
    if (w->have < FRAME_HEADER_BYTES) return;
    uint32_t length = le32(w->data);
    if (length > FRAME_PAYLOAD_BYTES_MAX) return broken(w, "a frame is over the bound");
    if (w->data[5] | w->data[6] | w->data[7]) return broken(w, "reserved bytes are not zero");
    if (w->have < FRAME_HEADER_BYTES + length) continue;
    struct frame frame = {w->data[4], le32(w->data + 8), w->data + FRAME_HEADER_BYTES, length};
    w->have = 0;
    w->on.frame(w->on.arg, &frame);
  }
}

void wire_read(struct wire *w, const uint8_t *data, size_t len) {
  size_t from = 0;
  for (size_t i = 0; i < len; i++) {
    if (!token_ends_at(w, data[i])) continue;
    /* What came before the token is real; the frame that the token cuts is not. */
    size_t body = i + 1 - from;
    collect(w, data + from, body > TOKEN_BYTES ? body - TOKEN_BYTES : 0);
    w->have = 0;
    w->scanning = false;
    from = i + 1;
    w->on.attached(w->on.arg);
  }
  collect(w, data + from, len - from);
}
