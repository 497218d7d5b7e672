#include "base64.h"

static int value_of(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  if (c == '+') return 62;
  if (c == '/') return 63;
  return -1;
}

ssize_t base64_decode(const char *text, size_t len, uint8_t *out, size_t out_max) {
  if (len % 4) return -1;
  size_t used = 0;
  for (size_t i = 0; i < len; i += 4) {
    size_t pad = 0;
    if (i + 4 == len) pad = text[i + 3] != '=' ? 0 : text[i + 2] != '=' ? 1 : 2;
    uint32_t bits = 0;
    for (size_t j = 0; j < 4; j++) {
      int v = j >= 4 - pad ? 0 : value_of(text[i + j]);
      if (v < 0) return -1;
      bits = bits << 6 | (uint32_t)v;
    }
    /* Bits that the padding cuts off must be zero: one text for one value. */
    if ((pad == 1 && (bits & 0xff)) || (pad == 2 && (bits & 0xffff))) return -1;
    for (size_t j = 0; j < 3 - pad; j++) {
      if (used == out_max) return -1;
      out[used++] = (uint8_t)(bits >> (16 - 8 * j));
    }
  }
  return (ssize_t)used;
}
