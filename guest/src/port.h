/* The virtio-serial port that is the channel of a guest without vsock. */
#ifndef FORKD_PORT_H
#define FORKD_PORT_H

/* Finds the port `name` and opens it, waiting for it at most `wait_ms`; -1. */
int port_open(const char *name, unsigned wait_ms);

#endif
