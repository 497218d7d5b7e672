/* The operations: what each request of the host asks for, by its `op`. */
#ifndef FORKD_OP_H
#define FORKD_OP_H

#include "json.h"
#include "reply.h"

/* Answers the ticket, now or later. */
typedef void op_fn(struct ticket ticket, const struct json *request);

op_fn op_ping, op_identity, op_clock, op_warm, op_freeze, op_thaw, op_hold, op_poweroff;
op_fn op_exec, op_eval, op_file;
op_fn op_exec_start, op_exec_attach, op_exec_list, op_exec_detach, op_exec_signal, op_exec_resize,
    op_exec_forget;

#endif
