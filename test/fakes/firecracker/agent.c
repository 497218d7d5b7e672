/* A small agent (docs/guest-protocol.md). All that it knows lies in the guest's RAM. */
#include "fake.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base64.h"
#include "frame.h"

#define GUEST_AT 0x10000UL
#define HISTORY_AT 0x100000UL
#define HISTORY_BYTES_MAX (16UL << 20)
#define EVALS_MAX 64

struct guest {
  char magic[8];
  uint8_t token[TOKEN_BYTES];
  uint32_t port;
  uint32_t gate_open;
  uint32_t held;
  uint32_t generation;
  uint32_t warm;
  uint32_t history_bytes;
  char hostname[65];
  char machine_id[40];
};
static const char guest_magic[8] = "FAKEGUES";

struct eval_input {
  uint32_t stream; /* 0: free */
  uint64_t want;
  struct buf code;
};

static struct guest guest;
static struct wire wire;
static struct eval_input inputs[EVALS_MAX];

static void remember(void) { ram_write(GUEST_AT, &guest, sizeof guest); }

unsigned agent_port(void) { return guest.port; }

static void send_frame(uint8_t type, uint32_t stream, const void *payload, size_t len) {
  uint8_t header[FRAME_HEADER_BYTES];
  frame_header(header, type, stream, (uint32_t)len);
  vsock_send(header, sizeof header);
  vsock_send(payload, len);
}

static void reply(uint32_t stream, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void reply(uint32_t stream, const char *format, ...) {
  char words[2048];
  va_list args;
  va_start(args, format);
  int n = vsnprintf(words, sizeof words, format, args);
  va_end(args);
  send_frame(FRAME_REPLY, stream, words, (size_t)n);
}

static void refuse(uint32_t stream, const char *code) {
  char words[256];
  int n = snprintf(words, sizeof words, "{\"code\":\"%s\",\"message\":\"%s\"}", code, code);
  send_frame(FRAME_ERROR, stream, words, (size_t)n);
}

static void op_hello(uint32_t stream, const struct json *op) {
  uint8_t echo[64];
  const char *text = json_get_string(op, "echo_b64");
  const char *next = json_get_string(op, "next_token_b64");
  ssize_t n = text ? base64_decode(text, strlen(text), echo, sizeof echo) : -1;
  if (n != 16 || !next || base64_decode(next, strlen(next), guest.token, TOKEN_BYTES) != 16) {
    refuse(stream, "bad_request");
    return;
  }
  remember();
  wire_set_token(&wire, guest.token);
  vsock_send(echo, 16);
  reply(stream,
        "{\"protocol\":1,\"agent\":\"fake\",\"boot_id\":\"fake\",\"generation\":%u,\"gate\":\"%s\","
        "\"held\":%s,\"warm\":\"%s\",\"runtime\":\"%s\"}",
        guest.generation, guest.gate_open ? "open" : "closed", guest.held ? "true" : "false",
        guest.warm ? "ready" : "none", guest.warm ? "python" : "none");
}

static void op_identity(uint32_t stream, const struct json *op) {
  const char *hostname = json_get_string(op, "hostname");
  const char *machine_id = json_get_string(op, "machine_id");
  const struct json *net = json_get(op, "net");
  const char *address = net ? json_get_string(net, "mac") : NULL;
  uint64_t generation = 0;
  if (!hostname || !machine_id || !json_get_uint(op, "generation", UINT32_MAX, &generation)) {
    refuse(stream, "bad_request");
    return;
  }
  snprintf(guest.hostname, sizeof guest.hostname, "%s", hostname);
  snprintf(guest.machine_id, sizeof guest.machine_id, "%s", machine_id);
  guest.generation = (uint32_t)generation;
  guest.gate_open = 1;
  guest.held = 0;
  remember();
  char mac[40] = "";
  if (address && *vm.card.id) snprintf(mac, sizeof mac, ",\"mac\":\"%.17s\"", address);
  reply(stream,
        "{\"generation\":%u,\"entropy_bytes\":64,\"crng_reseeded\":true,"
        "\"clock_skew_before_ms\":0,\"clock_skew_after_ms\":0,\"hostname\":\"%s\","
        "\"machine_id\":\"%s\"%s,\"hooks\":[],\"steps_ms\":{\"system\":0}}",
        guest.generation, guest.hostname, guest.machine_id, mac);
}

/* What was run before this VM was frozen is run again, once, when something new is to run. */
static void evaluated(uint32_t stream, const struct json *answer) {
  if (!answer) {
    refuse(stream, "runtime_died");
    return;
  }
  static const char *const names[] = {"ok", "result", "result_json", "error", "traceback"};
  struct buf out;
  struct jw w;
  buf_init(&out, FRAME_PAYLOAD_BYTES_MAX);
  jw_init(&w, &out);
  jw_open(&w, NULL, '{');
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    const struct json *value = json_get(answer, names[i]);
    if (value) {
      jw_raw(&w, names[i], value->raw, value->raw_len);
    } else {
      jw_null(&w, names[i]);
    }
  }
  jw_bool(&w, "timed_out", false);
  jw_int(&w, "duration_ms", 1);
  jw_close(&w, '}');
  send_frame(FRAME_REPLY, stream, buf_head(&out), out.len);
  buf_free(&out);
}

static bool replay(void) {
  if (eval_started()) return true;
  if (!eval_start(guest.hostname, evaluated)) return false;
  for (size_t at = 0; at + 4 <= guest.history_bytes;) {
    uint32_t len = le32(ram_at(HISTORY_AT + at));
    eval_send(0, (const char *)ram_at(HISTORY_AT + at + 4), len);
    at += 4 + len;
  }
  return true;
}

static void obey(uint32_t stream, const char *code, size_t len) {
  char said[DISK_WORDS_MAX];
  bool ok = disk_obey(code, len, said);
  reply(stream,
        "{\"ok\":%s,\"result\":%s%s%s,\"result_json\":null,\"error\":%s%s%s,"
        "\"traceback\":null,\"timed_out\":false,\"duration_ms\":1}",
        ok ? "true" : "false", ok ? "\"" : "", ok ? said : "null", ok ? "\"" : "",
        ok ? "" : "\"", ok ? "null" : said, ok ? "" : "\"");
}

static void evaluate(struct eval_input *in) {
  uint32_t stream = in->stream;
  in->stream = 0;
  if (disk_is_order((const char *)buf_head(&in->code), in->code.len)) {
    obey(stream, (const char *)buf_head(&in->code), in->code.len);
  } else if (!replay()) {
    refuse(stream, "no_runtime");
  } else if (guest.history_bytes + 4 + in->code.len > HISTORY_BYTES_MAX) {
    refuse(stream, "busy");
  } else {
    uint8_t len[4];
    put_le32(len, (uint32_t)in->code.len);
    ram_write(HISTORY_AT + guest.history_bytes, len, 4);
    ram_write(HISTORY_AT + guest.history_bytes + 4, buf_head(&in->code), in->code.len);
    guest.history_bytes += 4 + (uint32_t)in->code.len;
    remember();
    eval_send(stream, (const char *)buf_head(&in->code), in->code.len);
  }
  buf_free(&in->code);
}

static void op_eval(uint32_t stream, const struct json *op) {
  uint64_t bytes = 0;
  if (!guest.gate_open) {
    refuse(stream, "gate_closed");
    return;
  }
  for (size_t i = 0; i < EVALS_MAX; i++) {
    struct eval_input *in = &inputs[i];
    if (in->stream) continue;
    if (!json_get_uint(op, "code_bytes", EVAL_CODE_BYTES_MAX, &bytes)) break;
    *in = (struct eval_input){.stream = stream, .want = bytes};
    buf_init(&in->code, EVAL_CODE_BYTES_MAX);
    if (bytes == 0) evaluate(in);
    return;
  }
  refuse(stream, "bad_request");
}

static void input(const struct frame *f) {
  for (size_t i = 0; i < EVALS_MAX; i++) {
    struct eval_input *in = &inputs[i];
    if (in->stream != f->stream) continue;
    buf_add(&in->code, f->payload, f->length);
    if (in->code.len >= in->want) evaluate(in);
    return;
  }
}

static void serve(uint32_t stream, const char *name, const struct json *op) {
  if (strcmp(name, "hello") == 0) {
    op_hello(stream, op);
  } else if (strcmp(name, "ping") == 0) {
    reply(stream, "{\"pong\":true,\"numpy_version\":\"none\",\"pid\":1,\"agent_lang\":\"c\","
                  "\"warmup_ready\":true}");
  } else if (strcmp(name, "identity") == 0) {
    op_identity(stream, op);
  } else if (strcmp(name, "clock") == 0) {
    reply(stream, "{\"clock_skew_before_ms\":0}");
  } else if (strcmp(name, "warm") == 0) {
    guest.warm = 1;
    reply(stream, "{\"runtime\":\"python\",\"detail\":\"fake\"}");
  } else if (strcmp(name, "freeze") == 0 || strcmp(name, "hold") == 0) {
    if (name[0] == 'f') guest.gate_open = 0;
    guest.held = name[0] == 'h';
    reply(stream, "{}");
  } else if (strcmp(name, "thaw") == 0) {
    reply(stream, "{\"hold_left_ms\":%d}", guest.held ? 60000 : 0);
    guest.gate_open = 1;
    guest.held = 0;
  } else if (strcmp(name, "eval") == 0) {
    op_eval(stream, op);
  } else {
    refuse(stream, guest.gate_open ? "unknown_op" : "gate_closed");
  }
  remember();
}

static void on_frame(void *arg, const struct frame *f) {
  (void)arg;
  struct json_doc doc;
  if (f->type == FRAME_STDIN) input(f);
  if (f->type != FRAME_REQUEST) return;
  if (json_parse(&doc, (const char *)f->payload, f->length) < 0) {
    refuse(f->stream, "bad_request");
    return;
  }
  const char *name = json_get_string(doc.root, "op");
  if (name) serve(f->stream, name, doc.root);
  else refuse(f->stream, "bad_request");
  json_free(&doc);
}

static void on_attached(void *arg) { (void)arg; }
static void on_broken(void *arg, const char *why) {
  (void)arg;
  (void)why;
}
static const struct wire_handler handler = {on_attached, on_frame, on_broken, NULL};

void agent_init(unsigned port) {
  memset(&guest, 0, sizeof guest);
  memcpy(guest.magic, guest_magic, sizeof guest.magic);
  memcpy(guest.token, FIRST_TOKEN, TOKEN_BYTES);
  guest.port = port;
  guest.gate_open = 1;
  remember();
}

void agent_restored(void) {
  memcpy(&guest, ram_at(GUEST_AT), sizeof guest);
  if (memcmp(guest.magic, guest_magic, sizeof guest.magic) != 0) memset(&guest, 0, sizeof guest);
}

void agent_connected(void) {
  wire_init(&wire, &handler);
  wire_set_token(&wire, guest.token);
  for (size_t i = 0; i < EVALS_MAX; i++) inputs[i].stream = 0;
}

void agent_received(const uint8_t *data, size_t len) { wire_read(&wire, data, len); }
