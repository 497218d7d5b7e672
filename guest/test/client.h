/* The host's side of the channel, blocking, for tests; the agent runs in a child process. */
#ifndef FORKD_CLIENT_H
#define FORKD_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "buf.h"
#include "frame.h"

/* The last frame of a stream and what came before it. */
struct outcome {
  uint8_t type;
  char text[FRAME_PAYLOAD_BYTES_MAX + 1]; /* JSON of the reply or error */
  struct buf out;
  struct buf err;
  struct buf events; /* one a line */
};

/* Starts an agent with files under a fresh directory and attaches; port 0: no TCP door. */
void agent_start(unsigned tcp_port);
/* Closes the channel; true when the agent ended well. */
bool agent_stop(void);
const char *agent_root(void);
/* The cgroup v2 directory of the agents started from now on; NULL: none. */
void agent_cgroup(const char *dir);
struct outcome *client_last(void);
/* A new session; the hello's reply in the outcome of client_last. */
bool client_attach(void);
/* Sends a request on a new stream and returns the stream. */
uint32_t client_request(const char *json);
void client_send(uint8_t type, uint32_t stream, const void *data, uint32_t len);
void client_raw(const void *data, size_t len);
/* Waits for the last frame of a stream. With `credit`, output is given back as credit. */
struct outcome *client_wait(uint32_t stream, bool credit);
/* Reads frames for `ms` into the outcome, without waiting for a last one. */
struct outcome *client_collect(unsigned ms);
struct outcome *client_call(const char *json);
struct outcome *client_eval(const char *code, unsigned timeout_ms);
/* A fresh cgroup (cgroup.c); false where there is no cgroup v2 to write to. */
bool cgroup_make(char out[256]);
/* Kills what is left in it; false when it cannot be removed. */
bool cgroup_remove(const char *path);
/* The text of the last outcome holds `part`; prints it when not. */
bool client_has(const char *part, const char *name);

#endif
