#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "net.h"

static bool parse_mac(const char *text, uint8_t mac[6]) {
  unsigned b[6];
  char rest;
  if (!text || strlen(text) != 17 || strspn(text, "0123456789abcdef:") != 17) return false;
  if (sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%c", b, b + 1, b + 2, b + 3, b + 4, b + 5, &rest) != 6) {
    return false;
  }
  for (int i = 0; i < 6; i++) mac[i] = (uint8_t)b[i];
  /* Of one card, and chosen by us: IEEE 802, the two low bits of the first byte. */
  return (mac[0] & 3) == 2;
}

static bool parse_address(const char *text, struct net_address *out) {
  if (!text) return false;
  out->family = strchr(text, ':') ? AF_INET6 : AF_INET;
  out->prefix = out->family == AF_INET ? 32 : 128;
  return inet_pton(out->family, text, out->bytes) == 1;
}

static const char *parse_addresses(const struct json *list, struct net_plan *out) {
  if (!list || list->type != JSON_ARRAY) return "net.addresses must be a list";
  if (list->count > NET_ADDRESSES_MAX) return "net.addresses has too many entries";
  for (const struct json *item = list->child; item; item = item->next) {
    struct net_address *address = &out->addresses[out->address_count];
    uint64_t prefix;
    if (!parse_address(json_get_string(item, "address"), address)) {
      return "net.addresses has what is no address";
    }
    if (!json_get_uint(item, "prefix", address->prefix, &prefix)) {
      return "net.addresses has what is no prefix";
    }
    address->prefix = (uint8_t)prefix;
    out->address_count++;
  }
  return NULL;
}

static const char *parse_routes(const struct json *list, struct net_plan *out) {
  if (!list || list->type != JSON_ARRAY) return "net.routes must be a list";
  if (list->count > NET_ROUTES_MAX) return "net.routes has too many entries";
  for (const struct json *item = list->child; item; item = item->next) {
    struct net_route *route = &out->routes[out->route_count];
    if (!parse_address(json_get_string(item, "gateway"), &route->gateway) ||
        !parse_address(json_get_string(item, "source"), &route->source) ||
        route->gateway.family != route->source.family) {
      return "net.routes has what is no route";
    }
    out->route_count++;
  }
  return NULL;
}

const char *net_parse(const struct json *net, struct net_plan *out) {
  memset(out, 0, sizeof *out);
  if (!net || net->type != JSON_OBJECT) return "net must be an object";
  if (!parse_mac(json_get_string(net, "mac"), out->mac)) {
    return "net.mac must be a local address such as 02:00:00:00:00:01";
  }
  const char *wrong = parse_addresses(json_get(net, "addresses"), out);
  if (!wrong) wrong = parse_routes(json_get(net, "routes"), out);
  if (wrong || json_absent(net, "dns")) return wrong;
  const char *dns = json_get_string(net, "dns");
  struct net_address ignored;
  if (!parse_address(dns, &ignored)) return "net.dns must be an address";
  snprintf(out->dns, sizeof out->dns, "%s", dns);
  return NULL;
}
