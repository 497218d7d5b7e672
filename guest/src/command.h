/* A command as a request describes it: what exec and exec_start have in common. */
#ifndef FORKD_COMMAND_H
#define FORKD_COMMAND_H

#include "job.h"
#include "json.h"
#include "reply.h"
#include "spawn.h"

/* Points into the request that it was parsed from, and into itself: not to be copied. */
struct command {
  struct spawn what;
  struct env env;
  struct user user;
  uint64_t timeout_ms;
  bool with_stdin;
};

/* False, with the error sent. */
bool command_parse(struct ticket ticket, const struct json *request, struct command *command);
/* NULL, with the error sent. */
struct job *command_start(struct command *command, const struct job_sink *sink,
                          struct ticket ticket);
void command_free(struct command *command);
/* How a command ended, as fields of a reply. */
void job_result_fields(struct jw *w, const struct job_result *result);

#endif
