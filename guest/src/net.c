#include "net.h"

#include <errno.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "files.h"

/* The first card; what names cards otherwise, udev, does not run in a guest. */
#define CARD "eth0"
#define ETHER_TYPE 1 /* ARPHRD_ETHER */

/* One rtnetlink request (rtnetlink(7)). */
struct request {
  struct nlmsghdr head;
  char body[256];
};

static void add_part(struct request *r, const void *data, size_t len) {
  memcpy((char *)r + NLMSG_ALIGN(r->head.nlmsg_len), data, len);
  r->head.nlmsg_len = NLMSG_ALIGN(r->head.nlmsg_len) + (uint32_t)len;
}

static void begin(struct request *r, uint16_t type, uint16_t flags) {
  memset(r, 0, sizeof *r);
  r->head.nlmsg_len = NLMSG_LENGTH(0);
  r->head.nlmsg_type = type;
  r->head.nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_ACK | flags);
}

static void add_attribute(struct request *r, uint16_t type, const void *data, size_t len) {
  struct rtattr a = {.rta_len = (uint16_t)RTA_LENGTH(len), .rta_type = type};
  add_part(r, &a, sizeof a);
  add_part(r, data, len);
}

static size_t address_bytes(const struct net_address *a) { return a->family == AF_INET ? 4 : 16; }

/* Waits for the kernel's acknowledgement, which it gives at once. Returns an errno. */
static int talk(int fd, const struct request *r) {
  struct {
    struct nlmsghdr head;
    struct nlmsgerr error;
    char rest[512];
  } reply;
  if (send(fd, r, r->head.nlmsg_len, 0) != (ssize_t)r->head.nlmsg_len) return errno;
  ssize_t n = recv(fd, &reply, sizeof reply, 0);
  if (n < (ssize_t)NLMSG_LENGTH(sizeof reply.error)) return n < 0 ? errno : EPROTO;
  return reply.head.nlmsg_type == NLMSG_ERROR ? -reply.error.error : EPROTO;
}

/* IPv4 addresses outlive a card that goes down, IPv6 ones do not. */
static int drop_ipv4(void) {
  int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  struct ifreq r;
  int failed = sock < 0 ? errno : 0;
  /* An address of zero takes the label's addresses away (devinet_ioctl); until there is none. */
  for (unsigned i = 0; !failed && i <= NET_ADDRESSES_MAX; i++) {
    memset(&r, 0, sizeof r);
    strcpy(r.ifr_name, CARD);
    r.ifr_addr.sa_family = AF_INET;
    if (ioctl(sock, SIOCGIFADDR, &r) < 0) break;
    memset(&r.ifr_addr, 0, sizeof r.ifr_addr);
    r.ifr_addr.sa_family = AF_INET;
    if (ioctl(sock, SIOCSIFADDR, &r) < 0) failed = errno;
  }
  if (sock >= 0) close(sock);
  return failed;
}

static int set_link(int fd, unsigned index, bool up, const uint8_t *mac) {
  struct request r;
  struct ifinfomsg info = {.ifi_family = AF_UNSPEC, .ifi_type = ETHER_TYPE,
                           .ifi_index = (int)index};
  begin(&r, RTM_NEWLINK, 0);
  info.ifi_change = IFF_UP;
  info.ifi_flags = up ? IFF_UP : 0;
  add_part(&r, &info, sizeof info);
  if (mac) add_attribute(&r, IFLA_ADDRESS, mac, 6);
  return talk(fd, &r);
}

static int add_address(int fd, unsigned index, const struct net_address *a) {
  struct request r;
  struct ifaddrmsg info = {.ifa_family = (uint8_t)a->family, .ifa_prefixlen = a->prefix,
                           .ifa_index = index};
  /* Nobody else can have it: to wait and see would take a second. */
  if (a->family == AF_INET6) info.ifa_flags = IFA_F_NODAD;
  begin(&r, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE);
  add_part(&r, &info, sizeof info);
  add_attribute(&r, IFA_LOCAL, a->bytes, address_bytes(a));
  add_attribute(&r, IFA_ADDRESS, a->bytes, address_bytes(a));
  return talk(fd, &r);
}

static int add_route(int fd, unsigned index, const struct net_route *route) {
  struct request r;
  struct rtmsg info = {.rtm_family = (uint8_t)route->gateway.family, .rtm_table = RT_TABLE_MAIN,
                       .rtm_protocol = RTPROT_BOOT, .rtm_type = RTN_UNICAST};
  size_t len = address_bytes(&route->gateway);
  begin(&r, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE);
  add_part(&r, &info, sizeof info);
  add_attribute(&r, RTA_GATEWAY, route->gateway.bytes, len);
  add_attribute(&r, RTA_PREFSRC, route->source.bytes, len);
  add_attribute(&r, RTA_OIF, &index, sizeof index);
  return talk(fd, &r);
}

static bool has_ipv6(void) { return access("/proc/net/if_inet6", F_OK) == 0; }

/* A card that is down holds no address of IPv6, so those come when it is up. */
static int add_addresses(int fd, unsigned index, const struct net_plan *plan, int family) {
  int failed = 0;
  for (unsigned i = 0; !failed && i < plan->address_count; i++) {
    if (plan->addresses[i].family == family) failed = add_address(fd, index, &plan->addresses[i]);
  }
  return failed;
}

static const char *bring_up(int fd, unsigned index, const struct net_plan *plan) {
  bool ipv6 = has_ipv6();
  int failed = set_link(fd, index, false, plan->mac);
  if (!failed) failed = add_addresses(fd, index, plan, AF_INET);
  if (!failed) failed = set_link(fd, index, true, NULL);
  if (!failed && ipv6) failed = add_addresses(fd, index, plan, AF_INET6);
  for (unsigned i = 0; !failed && i < plan->route_count; i++) {
    const struct net_route *route = &plan->routes[i];
    if (ipv6 || route->gateway.family == AF_INET) failed = add_route(fd, index, route);
  }
  return failed ? strerror(failed) : NULL;
}

static const char *write_resolver(const char *dns) {
  char text[64];
  int n = snprintf(text, sizeof text, "nameserver %s\n", dns);
  return file_write("/etc/resolv.conf", text, (size_t)n, 0644) ? NULL : strerror(errno);
}

const char *net_apply(const struct net_plan *plan) {
  static bool in_use; /* by this guest, or by the one that it is a fork of */
  unsigned index = if_nametoindex(CARD);
  if (!index) return plan ? "this guest has no network card" : NULL;
  if (!plan && !in_use) return NULL;
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
  if (fd < 0) return strerror(errno);
  int failed = set_link(fd, index, false, NULL);
  if (!failed) failed = drop_ipv4();
  in_use = plan != NULL;
  const char *why = failed ? strerror(failed) : NULL;
  if (!why && plan) why = bring_up(fd, index, plan);
  close(fd);
  if (!why && plan && *plan->dns) why = write_resolver(plan->dns);
  return why;
}

bool net_read_mac(char out[18]) {
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  struct ifreq r;
  memset(&r, 0, sizeof r);
  strcpy(r.ifr_name, CARD);
  bool ok = fd >= 0 && ioctl(fd, SIOCGIFHWADDR, &r) == 0;
  const uint8_t *m = (const uint8_t *)r.ifr_hwaddr.sa_data;
  if (ok) snprintf(out, 18, "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5]);
  if (fd >= 0) close(fd);
  return ok;
}
