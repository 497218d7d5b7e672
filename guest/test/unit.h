/* Tests that need no running agent. */
#ifndef FORKD_UNIT_H
#define FORKD_UNIT_H

void unit_frame(void);
void unit_json(void);
void unit_text(void);
void unit_net(void);
void unit_accounts(void);

#endif
