#include "gate.h"

#include "tcp.h"

static bool closed;
static uint64_t closings;

bool gate_is_open(void) { return !closed; }
uint64_t gate_closings(void) { return closings; }

void gate_open(void) {
  closed = false;
  tcp_accept(true);
}

void gate_close(void) {
  closed = true;
  closings++;
  tcp_accept(false);
}
