/* Which operation does a request name? */
#ifndef FORKD_OP_TABLE_H
#define FORKD_OP_TABLE_H

#include <stdbool.h>

#include "op.h"

struct op {
  const char *name;
  op_fn *run;
  bool gated; /* starts or changes something: refused while the gate is closed, late in a hold */
};

/* NULL when there is none of this name. */
const struct op *op_find(const char *name);

#endif
