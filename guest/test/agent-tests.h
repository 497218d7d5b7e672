/* Tests against a running agent. */
#ifndef FORKD_AGENT_TESTS_H
#define FORKD_AGENT_TESTS_H

void agent_session(void);
void agent_exec(void);
void agent_execs(void);
void agent_file(void);
void agent_python(void);
void agent_node(void);
void agent_recipe(void);
void agent_hold(void);
void agent_tcp(void);
void agent_vsock(void);

#endif
