#include "op-table.h"

#include <string.h>

static const struct op ops[] = {
    {"ping", op_ping, false},
    {"identity", op_identity, false},
    {"clock", op_clock, false},
    {"warm", op_warm, false},
    {"freeze", op_freeze, false},
    {"thaw", op_thaw, false},
    {"hold", op_hold, false},
    {"poweroff", op_poweroff, false},
    {"exec", op_exec, true},
    {"eval", op_eval, true},
    {"file", op_file, true},
    {"exec_start", op_exec_start, true},
    {"exec_attach", op_exec_attach, true},
    {"exec_list", op_exec_list, false},
    {"exec_detach", op_exec_detach, true},
    {"exec_signal", op_exec_signal, true},
    {"exec_resize", op_exec_resize, true},
    {"exec_forget", op_exec_forget, true},
};

const struct op *op_find(const char *name) {
  for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
    if (strcmp(name, ops[i].name) == 0) return &ops[i];
  }
  return NULL;
}
