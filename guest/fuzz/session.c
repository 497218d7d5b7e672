#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "channel.h"
#include "files.h"
#include "identity.h"
#include "log.h"
#include "loop.h"
#include "reap.h"
#include "session.h"

/* Whole sessions: hello, then the input as one request of each kind of frame. Nothing is started,
 * because the gate is closed and `warm` refuses a second call after the first malformed one. */
static int host = -1;

static void start(void) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) < 0) __builtin_trap();
  host = pair[0];
  log_mute();
  files_set_root("/nonexistent");
  identity_simulate();
  loop_init();
  reap_init();
  session_start(pair[1], false);
}

static void give(uint8_t type, uint32_t stream, const void *data, size_t len) {
  uint8_t header[FRAME_HEADER_BYTES];
  frame_header(header, type, stream, (uint32_t)len);
  wire_read(channel_wire(), header, sizeof header);
  wire_read(channel_wire(), data, len);
}

static void drain(void) {
  static uint8_t chunk[65536];
  while (read(host, chunk, sizeof chunk) > 0) continue;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const char hello[] = "{\"op\":\"hello\",\"protocol\":1,"
                              "\"echo_b64\":\"ZWNob2VjaG9lY2hvZWNobw==\","
                              "\"next_token_b64\":\"Rk9SS0QtQVRUQUNILTAwMQ==\"}";
  static const char freeze[] = "{\"op\":\"freeze\"}";
  if (host < 0) start();
  if (size < 1 || size > FRAME_PAYLOAD_BYTES_MAX) return 0;
  /* A warm-up or a power-off would do what it says. */
  if (memmem(data, size, "warm", 4) || memmem(data, size, "power", 5)) return 0;
  if (memmem(data, size, "thaw", 4) || memmem(data, size, "\\u", 2)) return 0;
  wire_read(channel_wire(), (const uint8_t *)FIRST_TOKEN, TOKEN_BYTES);
  give(FRAME_REQUEST, 0, hello, sizeof hello - 1);
  give(FRAME_REQUEST, 1, freeze, sizeof freeze - 1);
  give(data[0] & 15 ? FRAME_REQUEST : data[0] >> 4, 2, data + 1, size - 1);
  wire_read(channel_wire(), data, size);
  loop_once(0);
  drain();
  return 0;
}
