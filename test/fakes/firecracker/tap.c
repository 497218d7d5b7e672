/* A tap device, with the flags that Firecracker opens it with. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "fake.h"

static bool fail(const char *what, char why[256]) {
  snprintf(why, 256, "Open tap device failed: %s: %s (os error %d)", what, strerror(errno), errno);
  return false;
}

bool tap_open(struct card *card, char why[256]) {
  struct ifreq tap = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
  char what[64];
  snprintf(tap.ifr_name, sizeof tap.ifr_name, "%s", card->tap);
  snprintf(what, sizeof what, "Error while creating ifreq structure of %s", card->tap);
  card->fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
  if (card->fd < 0) return fail("Couldn't open /dev/net/tun", why);
  if (ioctl(card->fd, TUNSETIFF, &tap) == 0) return true;
  fail(what, why);
  close(card->fd);
  return false;
}
