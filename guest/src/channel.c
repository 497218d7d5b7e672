#include "channel.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "buf.h"
#include "log.h"
#include "loop.h"

static struct watch watch;
static struct wire wire;
static struct buf queue;
static const struct channel_owner *owner;
static bool end_stops;
static bool listens; /* connections come one after the other, and end */
static bool held;
static size_t held_after; /* bytes that still go out while held */
static bool reading_paused;
static bool starved; /* somebody saw channel_room() == 0 */

/* Deferred to the loop, so that a frame written inside a handler does not re-enter it. */
static struct timer flush_timer;

static void drop(void) {
  loop_unwatch(&watch);
  close(watch.fd);
}

static void read_all(void) {
  static uint8_t chunk[65536];
  while (watch.active && !reading_paused) {
    ssize_t n = read(watch.fd, chunk, sizeof chunk);
    if (n > 0) {
      wire_read(&wire, chunk, (size_t)n);
      if (queue.len > QUEUE_HIGH_BYTES) reading_paused = true;
    } else if (n < 0 && errno == EINTR) {
      continue;
    } else {
      /* 0 from a port: no host is connected. Its arrival, like that of data, is an edge. */
      bool over = n == 0 || (errno != EAGAIN && errno != EPIPE);
      if (end_stops && over) loop_stop();
      if (listens && over) drop();
      return;
    }
  }
}

static void write_all(void) {
  while (watch.active && queue.len > 0) {
    size_t want = queue.len;
    if (held && want > held_after) want = held_after;
    if (want == 0) return;
    ssize_t n = write(watch.fd, buf_head(&queue), want);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    buf_consume(&queue, (size_t)n);
    if (held) held_after -= (size_t)n;
  }
}

static void serve(void *arg) {
  (void)arg;
  timer_clear(&flush_timer);
  write_all();
  if (reading_paused && queue.len < QUEUE_LOW_BYTES) {
    reading_paused = false;
    read_all();
    write_all();
  }
  if (starved && channel_room() > 0) {
    starved = false;
    owner->room();
    write_all();
  }
}

static void on_channel(void *arg, uint32_t events) {
  (void)events;
  read_all();
  serve(arg);
}

static void serve_fd(int fd) {
  set_nonblocking(fd);
  /* Edge-triggered: a port without a host reports a hang-up for as long as that lasts, and a level
   * would wake the loop for ever. The kernel wakes the port's queue when a host connects, when data
   * arrives and when room for writing comes back, and each is an edge. */
  loop_watch(&watch, fd, EPOLLIN | EPOLLOUT | EPOLLET, on_channel, NULL);
}

void channel_start(int fd, bool ends, const struct channel_owner *whose) {
  owner = whose;
  end_stops = ends;
  buf_init(&queue, QUEUE_BYTES_MAX);
  wire_init(&wire, &owner->wire);
  listens = fd < 0;
  if (!listens) serve_fd(fd);
}

void channel_replace(int fd) {
  if (watch.active) drop();
  /* What was on the way to or from the last host is nobody's: the next one begins with a token. */
  owner->lost();
  channel_clear();
  held_after = 0;
  serve_fd(fd);
}

struct wire *channel_wire(void) { return &wire; }
bool channel_live(void) { return !wire.scanning; }
void channel_attach(void) { wire.scanning = false; }
void channel_detach(void) { wire_scan(&wire); }

void channel_raw(const void *data, size_t len) {
  if (!buf_add(&queue, data, len)) {
    log_line("the host does not read: session ended");
    owner->lost();
    channel_clear();
    return;
  }
  if (!flush_timer.armed) timer_set(&flush_timer, 0, serve, NULL);
}

void channel_frame(uint8_t type, uint32_t stream, const void *payload, size_t len) {
  if (!channel_live()) return;
  uint8_t header[FRAME_HEADER_BYTES];
  frame_header(header, type, stream, (uint32_t)len);
  channel_raw(header, sizeof header);
  if (len && channel_live()) channel_raw(payload, len);
}

size_t channel_room(void) {
  size_t room = held || queue.len >= QUEUE_HIGH_BYTES ? 0 : QUEUE_HIGH_BYTES - queue.len;
  if (room == 0) starved = true;
  return room;
}

void channel_hold(void) {
  held = true;
  held_after = queue.len;
}

void channel_release(void) {
  held = false;
  if (!flush_timer.armed) timer_set(&flush_timer, 0, serve, NULL);
}

void channel_clear(void) {
  buf_free(&queue);
  reading_paused = false;
}
