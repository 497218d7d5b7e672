/* Commands that outlive the streams that show them: to leave, to list, to attach to again. */
#ifndef FORKD_EXECS_H
#define FORKD_EXECS_H

#include <stdint.h>

#include "command.h"
#include "json.h"
#include "stream.h"

struct exec;

/* The one with this id, or NULL. */
struct exec *exec_find(const char *id);
/* Starts a command for `stream`, to be shown there; NULL with the error sent and it closed. */
struct exec *exec_begin(const char *id, struct command *command, struct stream *stream);
/* Shows it from `from` on, or the nearest offset that is kept; who was shown it before is told. */
void exec_show(struct exec *exec, struct stream *stream, uint64_t from);
/* The stream shows it no more, if it did; it goes on. */
void exec_leave(struct exec *exec, uint32_t stream);
/* Nothing when it has ended. */
void exec_signal(struct exec *exec, int signal);
bool exec_resize(struct exec *exec, struct pty_size size);
/* Kills it, and forgets it once its end was shown to who is attached. */
void exec_forget(struct exec *exec);
/* All of them, as objects of an array. */
void execs_list(struct jw *w);

#endif
