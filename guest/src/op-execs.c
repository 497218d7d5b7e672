#include <string.h>

#include "execs.h"
#include "op.h"

static const char id_letters[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/* The id of a request, or NULL with the error sent. */
static const char *id_of(struct ticket ticket, const struct json *request) {
  const char *id = json_get_string(request, "id");
  size_t len = id ? strlen(id) : 0;
  if (len > 0 && len <= EXEC_ID_BYTES_MAX && strspn(id, id_letters) == len) return id;
  reply_error(ticket, "bad_request", "id must be 1 to %d letters, digits, - and _",
              EXEC_ID_BYTES_MAX);
  return NULL;
}

/* The exec that a request names, or NULL with the error sent. */
static struct exec *exec_of(struct ticket ticket, const struct json *request) {
  const char *id = id_of(ticket, request);
  struct exec *e = id ? exec_find(id) : NULL;
  if (id && !e) reply_error(ticket, "no_exec", "no command has the id %s", id);
  return e;
}

static bool size_of(const struct json *object, struct pty_size *size) {
  uint64_t rows;
  uint64_t cols;
  if (!json_get_uint(object, "rows", TTY_SIDE_MAX, &rows) || rows == 0) return false;
  if (!json_get_uint(object, "cols", TTY_SIDE_MAX, &cols) || cols == 0) return false;
  *size = (struct pty_size){(unsigned short)rows, (unsigned short)cols};
  return true;
}

/* False, with the error sent, when the request's `tty` is neither absent nor a size. */
static bool give_tty(struct ticket ticket, const struct json *request, struct command *command) {
  if (json_absent(request, "tty")) return true;
  if (!size_of(json_get(request, "tty"), &command->what.size)) {
    reply_error(ticket, "bad_request", "tty must be {rows, cols} of 1 to %d", TTY_SIDE_MAX);
    return false;
  }
  command->what.tty = true;
  /* A name that every image knows. */
  if (!env_get(&command->env, "TERM")) env_set(&command->env, "TERM", "xterm");
  return true;
}

static void begin(struct ticket ticket, const char *id, struct command *command) {
  struct stream *s = stream_open(ticket);
  struct exec *e = s ? exec_begin(id, command, s) : NULL;
  if (e) exec_show(e, s, 0);
}

void op_exec_start(struct ticket ticket, const struct json *request) {
  struct command command;
  const char *id = id_of(ticket, request);
  if (!id) return;
  if (exec_find(id)) {
    reply_error(ticket, "bad_request", "the id %s is taken", id);
    return;
  }
  if (!command_parse(ticket, request, &command)) return;
  if (give_tty(ticket, request, &command)) begin(ticket, id, &command);
  command_free(&command);
}

void op_exec_attach(struct ticket ticket, const struct json *request) {
  uint64_t from = 0;
  if (!json_absent(request, "from") && !json_get_uint(request, "from", 1ULL << 53, &from)) {
    reply_error(ticket, "bad_request", "from must be an offset");
    return;
  }
  struct exec *e = exec_of(ticket, request);
  struct stream *s = e ? stream_open(ticket) : NULL;
  if (s) exec_show(e, s, from);
}

void op_exec_list(struct ticket ticket, const struct json *request) {
  (void)request;
  struct jw *w = reply_begin();
  jw_open(w, "execs", '[');
  execs_list(w);
  jw_close(w, ']');
  reply_send(ticket);
}

void op_exec_detach(struct ticket ticket, const struct json *request) {
  uint64_t stream;
  if (!json_get_uint(request, "stream", UINT32_MAX, &stream)) {
    reply_error(ticket, "bad_request", "stream must be the number of a stream");
    return;
  }
  struct exec *e = exec_of(ticket, request);
  if (!e) return;
  exec_leave(e, (uint32_t)stream);
  reply_empty(ticket);
}

void op_exec_signal(struct ticket ticket, const struct json *request) {
  uint64_t signal;
  if (!json_get_uint(request, "signal", 64, &signal) || signal == 0) {
    reply_error(ticket, "bad_request", "signal must be 1 to 64");
    return;
  }
  struct exec *e = exec_of(ticket, request);
  if (!e) return;
  exec_signal(e, (int)signal);
  reply_empty(ticket);
}

void op_exec_resize(struct ticket ticket, const struct json *request) {
  struct pty_size size;
  if (!size_of(request, &size)) {
    reply_error(ticket, "bad_request", "rows and cols must be 1 to %d", TTY_SIDE_MAX);
    return;
  }
  struct exec *e = exec_of(ticket, request);
  if (!e) return;
  if (exec_resize(e, size)) {
    reply_empty(ticket);
  } else {
    reply_error(ticket, "bad_request", "it has no terminal");
  }
}

void op_exec_forget(struct ticket ticket, const struct json *request) {
  struct exec *e = exec_of(ticket, request);
  if (!e) return;
  exec_forget(e);
  reply_empty(ticket);
}
