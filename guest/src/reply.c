#include "reply.h"

#include <stdarg.h>
#include <stdio.h>

#include "bounds.h"
#include "channel.h"

static uint64_t session = 1;
static struct buf reply;
static struct jw writer;

struct ticket reply_ticket(uint32_t stream) { return (struct ticket){stream, session}; }

void reply_session_over(void) { session++; }

struct jw *reply_begin(void) {
  if (!reply.max) buf_init(&reply, FRAME_PAYLOAD_BYTES_MAX);
  buf_clear(&reply);
  jw_init(&writer, &reply);
  jw_open(&writer, NULL, '{');
  return &writer;
}

static void send(struct ticket ticket, uint8_t type) {
  jw_close(&writer, '}');
  if (reply.overflow) {
    reply_error(ticket, "internal", "the answer is larger than a frame");
    return;
  }
  if (ticket.session == session) channel_frame(type, ticket.stream, buf_head(&reply), reply.len);
}

void reply_send(struct ticket ticket) { send(ticket, FRAME_REPLY); }

void reply_event(struct ticket ticket) { send(ticket, FRAME_EVENT); }

void reply_empty(struct ticket ticket) {
  reply_begin();
  reply_send(ticket);
}

void reply_error(struct ticket ticket, const char *code, const char *format, ...) {
  char text[WARM_TAIL_BYTES + 1024];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  struct jw *w = reply_begin();
  jw_string(w, "code", code);
  jw_string(w, "message", text);
  send(ticket, FRAME_ERROR);
}
