/* The guest's network card: down until an identity says what it is. */
#ifndef FORKD_NET_H
#define FORKD_NET_H

#include <stdbool.h>
#include <stdint.h>

#include "json.h"

#define NET_ADDRESSES_MAX 8
#define NET_ROUTES_MAX 4

struct net_address {
  int family; /* AF_INET or AF_INET6 */
  uint8_t bytes[16];
  uint8_t prefix;
};

/* A default route. */
struct net_route {
  struct net_address gateway;
  struct net_address source; /* what connections of the guest come from */
};

struct net_plan {
  uint8_t mac[6];
  struct net_address addresses[NET_ADDRESSES_MAX];
  unsigned address_count;
  struct net_route routes[NET_ROUTES_MAX];
  unsigned route_count;
  char dns[46]; /* empty leaves /etc/resolv.conf alone */
};

/* Reads the `net` of an identity request. Returns NULL, or what is wrong with it. */
const char *net_parse(const struct json *net, struct net_plan *out);

/* Takes the card down with all that it had, then brings it up as `plan` says. NULL leaves it down.
 * Nothing leaves the guest under the name of the one that it is a fork of. Returns NULL, or what
 * failed. */
const char *net_apply(const struct net_plan *plan);

/* What the card has, by asking the kernel; false when there is none that is up. */
bool net_read_mac(char out[18]);

#endif
