#include "unit.h"

#include "tap.h"

int main(void) {
  unit_frame();
  unit_json();
  unit_text();
  unit_net();
  unit_accounts();
  return tap_end();
}
