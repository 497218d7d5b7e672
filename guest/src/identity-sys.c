#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "identity-sys.h"
#include "bounds.h"

static int urandom = -1;

void system_entropy_open(void) {
  if (urandom < 0) urandom = open("/dev/urandom", O_RDWR | O_CLOEXEC);
}

const char *system_entropy(const uint8_t *bytes, size_t len) {
  struct {
    int entropy_count; /* bits */
    int buf_size;
    uint8_t buf[ENTROPY_BYTES_MAX];
  } pool;
  if (len > sizeof pool.buf) return "too much entropy";
  pool.entropy_count = (int)len * 8;
  pool.buf_size = (int)len;
  memcpy(pool.buf, bytes, len);
  system_entropy_open();
  if (urandom < 0) return strerror(errno);
  const char *failed = NULL;
  /* In this order: a reseed before the credit would use the parent's pool. */
  if (ioctl(urandom, RNDADDENTROPY, &pool) < 0 || ioctl(urandom, RNDRESEEDCRNG, 0) < 0) {
    failed = strerror(errno);
  }
  explicit_bzero(&pool, sizeof pool);
  return failed;
}

const char *system_clock(int64_t wall_ns) {
  struct timespec t = {wall_ns / 1000000000, wall_ns % 1000000000};
  return clock_settime(CLOCK_REALTIME, &t) < 0 ? strerror(errno) : NULL;
}

const char *system_hostname(const char *name) {
  return sethostname(name, strlen(name)) < 0 ? strerror(errno) : NULL;
}

int64_t wall_clock_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}
