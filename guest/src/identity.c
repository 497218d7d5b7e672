#include "identity.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base64.h"
#include "files.h"
#include "cells.h"
#include "eval.h"
#include "gate.h"
#include "hold.h"
#include "hooks.h"
#include "identity-sys.h"
#include "bounds.h"
#include "loop.h"
#include "net.h"
#include "op.h"
#include "reseed.h"

#define SEED_BYTES 32

static bool simulated;
static uint64_t current_generation;

/* The one in progress; `busy` until its reply. */
static struct {
  bool busy;
  struct ticket ticket;
  uint64_t closings; /* a freeze in between takes the gate back */
  uint64_t generation;
  uint8_t entropy[ENTROPY_BYTES_MAX];
  size_t entropy_bytes;
  int64_t wall_ns;
  uint64_t received_ns;
  double skew_before_ms;
  double skew_after_ms;
  char hostname[65];
  char machine_id[33];
  bool has_net; /* else the guest has no network */
  struct net_plan net;
  char mac[18]; /* as the kernel has it; empty without a network */
  char reseeded[512]; /* JSON array */
  bool reseed_pending;
  double steps_ms[4]; /* when each was over, since the request came */
} id;

static const char *const step_names[] = {"system", "files", "reseed", "hooks"};

static void step_over(int step) { id.steps_ms[step] = (double)(now_ns() - id.received_ns) / 1e6; }

void identity_simulate(void) { simulated = true; }
uint64_t identity_generation(void) { return current_generation; }

static void failed(const char *step, const char *why) {
  id.busy = false;
  reply_error(id.ticket, "identity_failed", "identity: %s: %s", step, why);
}

static bool valid_hostname(const char *name) {
  size_t len = strlen(name);
  if (len == 0 || len > 64 || *name == '-' || *name == '.') return false;
  for (const char *p = name; *p; p++) {
    bool alnum = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9');
    if (!alnum && *p != '-' && *p != '.') return false;
  }
  return true;
}

static bool valid_machine_id(const char *text) {
  return strlen(text) == 32 && strspn(text, "0123456789abcdef") == 32;
}

static bool parse_wall_clock(const char *text, int64_t *out) {
  size_t len = text ? strlen(text) : 0;
  if (len == 0 || len > 19 || strspn(text, "0123456789") != len) return false;
  errno = 0;
  *out = strtoll(text, NULL, 10);
  return errno == 0;
}

static const char *parse(const struct json *request) {
  const struct json *entropy = json_get(request, "entropy_b64");
  const char *hostname = json_get_string(request, "hostname");
  const char *machine_id = json_get_string(request, "machine_id");
  if (!json_get_uint(request, "generation", 1ULL << 53, &id.generation)) {
    return "generation must be a whole number";
  }
  if (!entropy || entropy->type != JSON_STRING) return "entropy_b64 is missing";
  ssize_t n = base64_decode(entropy->str, entropy->len, id.entropy, sizeof id.entropy);
  if (n < ENTROPY_BYTES_MIN) return "entropy_b64 must be 32 to 512 bytes";
  id.entropy_bytes = (size_t)n;
  if (!parse_wall_clock(json_get_string(request, "wall_clock_ns"), &id.wall_ns)) {
    return "wall_clock_ns must be a decimal text";
  }
  if (!hostname || !valid_hostname(hostname)) return "hostname is not valid";
  if (!machine_id || !valid_machine_id(machine_id)) return "machine_id must be 32 hex digits";
  strcpy(id.hostname, hostname);
  strcpy(id.machine_id, machine_id);
  id.has_net = !json_absent(request, "net");
  return id.has_net ? net_parse(json_get(request, "net"), &id.net) : NULL;
}

/* Milliseconds that the clock of this guest is ahead of the given one. */
static double skew_ms(void) {
  int64_t elapsed = (int64_t)(now_ns() - id.received_ns);
  return (double)(wall_clock_ns() - elapsed - id.wall_ns) / 1e6;
}

static bool set_network(void) {
  const char *why = net_apply(id.has_net ? &id.net : NULL);
  if (!why && id.has_net && !net_read_mac(id.mac)) why = "the card's address cannot be read";
  if (why) failed("network", why);
  return !why;
}

static bool set_system(void) {
  const char *why;
  id.skew_before_ms = skew_ms();
  if (!simulated) {
    if ((why = system_entropy(id.entropy, id.entropy_bytes))) {
      failed("entropy", why);
      return false;
    }
    if ((why = system_clock(id.wall_ns + (int64_t)(now_ns() - id.received_ns)))) {
      failed("clock", why);
      return false;
    }
    if ((why = system_hostname(id.hostname))) {
      failed("host name", why);
      return false;
    }
    if (!set_network()) return false;
  }
  explicit_bzero(id.entropy, sizeof id.entropy);
  id.skew_after_ms = skew_ms();
  return true;
}

/* What an identity writes. The descriptors are opened at a freeze, so that a fork need not. */
static struct kept_file {
  const char *path;
  unsigned mode;
  int fd;
} kept[] = {
    {"/etc/machine-id", 0444, -1},
    {"/etc/hostname", 0644, -1},
    {"/run/forkd/generation", 0644, -1},
};

void identity_prepare(void) {
  hooks_list();
  system_entropy_open();
  for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
    if (kept[i].fd >= 0) close(kept[i].fd);
    kept[i].fd = file_open_existing(kept[i].path);
  }
}

/* A file that somebody has replaced since has no name any more. */
static bool write_kept(struct kept_file *file, const char *text, size_t len) {
  struct stat st;
  bool ok = file->fd >= 0 && fstat(file->fd, &st) == 0 && st.st_nlink > 0;
  ok = ok && pwrite(file->fd, text, len, 0) == (ssize_t)len;
  if (ok && st.st_size > (off_t)len) ok = ftruncate(file->fd, (off_t)len) == 0;
  return ok || file_overwrite(file->path, text, len, file->mode);
}

static bool write_files(void) {
  char generation[32];
  snprintf(generation, sizeof generation, "%llu", (unsigned long long)id.generation);
  const char *values[] = {id.machine_id, id.hostname, generation};
  for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
    char text[80];
    int n = snprintf(text, sizeof text, "%s\n", values[i]);
    if (!write_kept(&kept[i], text, (size_t)n)) {
      failed(kept[i].path, strerror(errno));
      return false;
    }
  }
  current_generation = id.generation;
  return true;
}

static void on_hooks(const char *json, size_t len) {
  if (id.closings != gate_closings()) {
    failed("gate", "the guest was frozen in between");
    return;
  }
  id.busy = false;
  gate_open();
  hold_end();
  step_over(3);
  struct jw *w = reply_begin();
  jw_int(w, "generation", (int64_t)id.generation);
  jw_int(w, "entropy_bytes", (int64_t)id.entropy_bytes);
  jw_bool(w, "crng_reseeded", !simulated);
  if (simulated) jw_bool(w, "simulated", true);
  jw_ms(w, "clock_skew_before_ms", id.skew_before_ms);
  jw_ms(w, "clock_skew_after_ms", id.skew_after_ms);
  jw_string(w, "hostname", id.hostname);
  jw_string(w, "machine_id", id.machine_id);
  if (*id.mac) jw_string(w, "mac", id.mac);
  jw_raw(w, "reseeded", id.reseeded, strlen(id.reseeded));
  jw_bool(w, "reseed_pending", id.reseed_pending);
  jw_raw(w, "hooks", json, len);
  jw_open(w, "steps_ms", '{');
  for (int i = 0; i < 4; i++) {
    jw_ms(w, step_names[i], id.steps_ms[i] - (i ? id.steps_ms[i - 1] : 0));
  }
  jw_close(w, '}');
  reply_send(id.ticket);
}

static void on_reseeded(const struct reseed_result *r) {
  if (!r->ok) {
    failed("runtime", r->error);
    return;
  }
  step_over(2);
  id.reseed_pending = r->pending;
  bool fits = r->names.len < sizeof id.reseeded;
  snprintf(id.reseeded, sizeof id.reseeded, "%.*s", fits ? (int)r->names.len : 2,
           fits ? r->names.json : "[]");
  cell_thaw(CELL_HOOKS);
  hooks_run(id.generation, on_hooks);
}

void op_clock(struct ticket ticket, const struct json *request) {
  int64_t wall_ns;
  if (!parse_wall_clock(json_get_string(request, "wall_clock_ns"), &wall_ns)) {
    reply_error(ticket, "bad_request", "clock: wall_clock_ns must be a decimal text");
    return;
  }
  double before_ms = (double)(wall_clock_ns() - wall_ns) / 1e6;
  const char *why = simulated ? NULL : system_clock(wall_ns);
  if (why) {
    reply_error(ticket, "identity_failed", "clock: %s", why);
    return;
  }
  struct jw *w = reply_begin();
  jw_ms(w, "clock_skew_before_ms", before_ms);
  reply_send(ticket);
}

void op_identity(struct ticket ticket, const struct json *request) {
  if (id.busy) {
    reply_error(ticket, "busy", "identity: one is in progress");
    return;
  }
  memset(&id, 0, sizeof id);
  id.received_ns = now_ns();
  id.ticket = ticket;
  id.closings = gate_closings();
  const char *wrong = parse(request);
  if (wrong) {
    reply_error(ticket, "bad_request", "identity: %s", wrong);
    return;
  }
  id.busy = true;
  if (!set_system()) return;
  step_over(0);
  if (!write_files()) return;
  step_over(1);
  uint8_t seed[SEED_BYTES];
  char hex[2 * SEED_BYTES + 1];
  if (getrandom(seed, sizeof seed, 0) != (ssize_t)sizeof seed) {
    failed("seed", strerror(errno));
    return;
  }
  for (size_t i = 0; i < sizeof seed; i++) snprintf(hex + 2 * i, 3, "%02x", seed[i]);
  reseed_runtime(hex, eval_is_running(), on_reseeded);
}
