/* What each request does, and when it may. The words are those that upstream's users see. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fake.h"

struct vm vm;
bool vm_doomed;

static bool before_start(struct answer *a) {
  if (vm.state == NOT_STARTED) return true;
  answer_fault(a, "The requested operation is not supported after starting the microVM.");
  return false;
}

static bool after_start(struct answer *a) {
  if (vm.state != NOT_STARTED) return true;
  answer_fault(a, "The requested operation is not supported before starting the microVM.");
  return false;
}

static void copy(char *to, size_t max, const struct json *body, const char *name) {
  const char *text = json_get_string(body, name);
  snprintf(to, max, "%s", text ? text : "");
}

static bool flag(const struct json *body, const char *name) {
  const struct json *value = json_get(body, name);
  return value && value->boolean;
}

static unsigned number(const struct json *body, const char *name) {
  const struct json *value = json_get(body, name);
  return value ? (unsigned)value->number : 0;
}

void do_describe(const struct json *body, struct answer *a) {
  (void)body;
  static const char *const states[] = {"Not started", "Running", "Paused"};
  struct jw w;
  jw_init(&w, &a->body);
  jw_open(&w, NULL, '{');
  jw_string(&w, "id", "anonymous-instance");
  jw_string(&w, "state", states[vm.state]);
  jw_string(&w, "vmm_version", fake_version_text);
  jw_string(&w, "app_name", "Firecracker");
  jw_close(&w, '}');
  a->status = 200;
}

void do_version(const struct json *body, struct answer *a) {
  (void)body;
  buf_printf(&a->body, "{\"firecracker_version\":\"%s\"}", fake_version_text);
  a->status = 200;
}

void do_machine(const struct json *body, struct answer *a) {
  if (!before_start(a)) return;
  unsigned vcpus = number(body, "vcpu_count");
  unsigned mib = number(body, "mem_size_mib");
  if (vcpus < 1 || vcpus > 32 || (vcpus > 1 && flag(body, "smt") && vcpus % 2)) {
    answer_fault(a, "Machine config error: The number of vCPUs must be greater than 0, less than 32"
                    " and must be 1 or an even number if SMT is enabled.");
  } else if (mib == 0 || mib > VM_MIB_MAX) {
    answer_fault(a, "Machine config error: The memory size (MiB) is either 0, or not a multiple of"
                    " the configured page size.");
  } else {
    vm.vcpus = vcpus;
    vm.mem_mib = mib;
    vm.tracks = flag(body, "track_dirty_pages");
    vm.configured = true;
  }
}

void do_cpu(const struct json *body, struct answer *a) {
  (void)body;
  /* Alone among the settings it does not forbid a load. */
  before_start(a);
}

void do_boot_source(const struct json *body, struct answer *a) {
  if (!before_start(a)) return;
  copy(vm.kernel, sizeof vm.kernel, body, "kernel_image_path");
  copy(vm.initrd, sizeof vm.initrd, body, "initrd_path");
  copy(vm.boot_args, sizeof vm.boot_args, body, "boot_args");
  vm.configured = true;
  if (access(vm.kernel, R_OK) != 0) {
    answer_fault(a, "Boot source error: The kernel file cannot be opened: %s (os error %d)",
                 strerror(errno), errno);
  } else if (*vm.initrd && access(vm.initrd, R_OK) != 0) {
    answer_fault(a, "Boot source error: The initrd file cannot be opened due to invalid path or"
                    " invalid permissions. %s (os error %d)", strerror(errno), errno);
  }
}

static bool drive_open(struct drive *d, char why[256]) {
  d->fd = open(d->path, (d->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
  if (d->fd >= 0) return true;
  snprintf(why, 256, "Virtio backend error: Error manipulating the backing file: %s (os error %d)"
                     " %.100s", strerror(errno), errno, d->path);
  return false;
}

static struct drive *find_drive(const char *id) {
  for (size_t i = 0; i < vm.drive_count; i++) {
    if (strcmp(vm.drives[i].id, id) == 0) return &vm.drives[i];
  }
  return NULL;
}

void do_drive(const struct json *body, struct answer *a) {
  static const char lead[] = "Drive config error: Unable to create the virtio block device:";
  char why[256];
  if (vm.state != NOT_STARTED) {
    /* Guests with PCI take disks later too; ours have none. */
    answer_fault(a, "PCI is not enabled");
    return;
  }
  vm.configured = true;
  struct drive d = {.read_only = flag(body, "is_read_only")};
  copy(d.id, sizeof d.id, body, "drive_id");
  copy(d.path, sizeof d.path, body, "path_on_host");
  struct drive *old = find_drive(d.id);
  if (!old && vm.drive_count == DRIVES_MAX) {
    answer_fault(a, "Drive config error: Too many devices.");
  } else if (!*d.path) {
    answer_fault(a, "%s Invalid block config.", lead);
  } else if (!drive_open(&d, why)) {
    answer_fault(a, "%s %s", lead, why);
  } else if (old) {
    close(old->fd);
    *old = d;
  } else {
    vm.drives[vm.drive_count++] = d;
  }
}

void do_patch_drive(const struct json *body, struct answer *a) {
  if (!after_start(a) || find_drive(json_get_string(body, "drive_id"))) return;
  answer_fault(a, "Drive config error: Unable to patch the block device: Failed perform action on"
                  " device: Device not found Please verify the request arguments.");
}

/* The device is opened here, and not when the guest starts. */
void do_net(const struct json *body, struct answer *a) {
  static const char lead[] = "Network config error: Could not create the network device:";
  char why[256];
  if (!before_start(a)) return;
  vm.configured = true;
  const char *tap = json_get_string(body, "host_dev_name");
  if (strlen(tap) >= TAP_BYTES_MAX) {
    answer_fault(a, "%s Open tap device failed: Invalid interface name", lead);
    return;
  }
  struct card card;
  copy(card.id, sizeof card.id, body, "iface_id");
  copy(card.tap, sizeof card.tap, body, "host_dev_name");
  if (tap_open(&card, why)) vm.card = card;
  else answer_fault(a, "%s %s", lead, why);
}

/* Its socket is made here, and not when the guest starts. */
void do_vsock(const struct json *body, struct answer *a) {
  char why[256];
  if (!before_start(a)) return;
  vm.configured = true;
  vsock_close();
  copy(vm.vsock, sizeof vm.vsock, body, "uds_path");
  if (vsock_open(why)) return;
  answer_fault(a, "Vsock config error: Cannot create backend for vsock device: %s", why);
  *vm.vsock = 0;
}

void do_entropy(const struct json *body, struct answer *a) {
  (void)body;
  if (!before_start(a)) return;
  vm.configured = true;
  vm.entropy = true;
}

static bool is_elf(const char *path) {
  char head[4] = "";
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  bool elf = fd >= 0 && read(fd, head, 4) == 4 && memcmp(head, "\x7f""ELF", 4) == 0;
  if (fd >= 0) close(fd);
  return elf;
}

static void start(struct answer *a) {
  if (!*vm.kernel) {
    answer_fault(a, "Start microvm error: Cannot start microvm without kernel configuration.");
  } else if (!is_elf(vm.kernel)) {
    answer_fault(a, "Start microvm error: System configuration error: Cannot load kernel due to"
                    " invalid memory configuration or invalid kernel image: Kernel Loader: failed"
                    " to load ELF kernel image: Kernel Loader: Invalid Elf magic number");
  } else if (!ram_anonymous(vm.mem_mib ? vm.mem_mib : 128)) {
    answer_fault(a, "Start microvm error: out of memory");
  } else {
    const char *channel = strstr(vm.boot_args, "forkd.channel=vsock:");
    agent_init(channel ? (unsigned)atoi(channel + strlen("forkd.channel=vsock:")) : 0);
    vm.state = RUNNING;
    printf("forkd-agent: version fake\n");
    fflush(stdout);
    vsock_run(true);
    if (*vm.vsock && agent_port()) vsock_knock(agent_port());
  }
}

void do_action(const struct json *body, struct answer *a) {
  const char *type = json_get_string(body, "action_type");
  if (strcmp(type, "InstanceStart") == 0) {
    if (before_start(a)) start(a);
  } else if (after_start(a) && strcmp(type, "SendCtrlAltDel") == 0) {
    exit(0);
  }
}

void do_vm(const struct json *body, struct answer *a) {
  if (!after_start(a)) return;
  bool run = strcmp(json_get_string(body, "state"), "Resumed") == 0;
  if (!run) {
    vsock_run(false);
  } else if (vm.state == PAUSED) {
    vsock_resume();
    disk_resume();
  }
  vm.state = run ? RUNNING : PAUSED;
}

void do_create(const struct json *body, struct answer *a) {
  char why[256] = "";
  if (!after_start(a)) return;
  if (vm.state == RUNNING) {
    answer_fault(a, "Create snapshot error: Cannot save the microVM state: Operation not allowed:"
                    " save/restore unavailable while running");
    return;
  }
  vsock_reset();
  disk_settle();
  const char *type = json_get_string(body, "snapshot_type");
  /* Without a record the diff is what is resident: all that may have been written. */
  bool diff = type && strcmp(type, "Diff") == 0 && vm.tracks;
  if (!state_save(json_get_string(body, "snapshot_path"), why) ||
             !ram_dump(json_get_string(body, "mem_file_path"), diff, why)) {
    answer_fault(a, "Create snapshot error: %s", why);
  }
}

/* What the state says otherwise; a device that it has not is refused. */
static bool override(const struct json *body, char why[256]) {
  static const char lead[] = "Failed to get snapshot state from file: Unknown";
  const struct json *vsock = json_get(body, "vsock_override");
  const struct json *cards = json_get(body, "network_overrides");
  for (const struct json *v = cards ? cards->child : NULL; v; v = v->next) {
    const char *id = json_get_string(v, "iface_id");
    if (!id || !*vm.card.id || strcmp(id, vm.card.id) != 0) {
      snprintf(why, 256, "%s Network Device.", lead);
      return false;
    }
    copy(vm.card.tap, sizeof vm.card.tap, v, "host_dev_name");
  }
  if (vsock && !*vm.vsock) {
    snprintf(why, 256, "%s Vsock Device.", lead);
    return false;
  }
  if (vsock) copy(vm.vsock, sizeof vm.vsock, vsock, "uds_path");
  return true;
}

static bool devices(char why[256]) {
  static const char lead[] =
      "Failed to build microVM from snapshot: Failed to restore devices: Error restoring MMIO devices:";
  char reason[160] = "";
  char words[256];
  for (size_t i = 0; !*reason && i < vm.drive_count; i++) {
    if (!drive_open(&vm.drives[i], words)) snprintf(reason, sizeof reason, "Block: %.140s", words);
  }
  if (!*reason && *vm.card.id && !tap_open(&vm.card, words)) {
    snprintf(reason, sizeof reason, "Net: CreateNet: %.140s", words);
  }
  if (!*reason && *vm.vsock && !vsock_open(words)) {
    snprintf(reason, sizeof reason, "VsockUnixBackend: %.140s", words);
  }
  if (*reason) snprintf(why, 256, "%s %s", lead, reason);
  return !*reason;
}

static bool restore(const struct json *body, char why[256]) {
  const struct json *backend = json_get(body, "mem_backend");
  const char *path = backend ? json_get_string(backend, "backend_path") : NULL;
  if (!path) path = json_get_string(body, "mem_file_path");
  return state_load(json_get_string(body, "snapshot_path"), why) && override(body, why) &&
         ram_private(path, vm.mem_mib, why) && devices(why);
}

static bool one_backend(const struct json *body, struct answer *a) {
  static const char lead[] = "An error occurred when deserializing the json body of a request:";
  static const char both[] = "either `mem_backend` or `mem_file_path`";
  const struct json *backend = json_get(body, "mem_backend");
  const char *type = backend ? json_get_string(backend, "backend_type") : "File";
  bool old = json_get(body, "mem_file_path") != NULL;
  if (!backend && !old) answer_fault(a, "%s missing field: %s is required.", lead, both);
  else if (backend && old) answer_fault(a, "%s too many fields: %s exclusively is required.", lead, both);
  else if (!type) answer_fault(a, "%s missing field `backend_type`.", lead);
  else if (strcmp(type, "File") == 0) return true;
  else answer_fault(a, "%s unknown variant `%s`, expected `File` or `Uffd`.", lead, type);
  return false;
}

void do_load(const struct json *body, struct answer *a) {
  char why[256] = "";
  if (!one_backend(body, a) || !before_start(a)) return;
  if (vm.configured) {
    answer_fault(a, "Load snapshot error: Loading a microVM snapshot not allowed after configuring"
                    " boot-specific resources.");
    return;
  }
  if (!restore(body, why)) {
    answer_fault(a, "Load snapshot error: Failed to restore from snapshot: %s", why);
    vm_doomed = true;
    return;
  }
  vm.tracks = flag(body, "track_dirty_pages") || flag(body, "enable_diff_snapshots");
  vm.state = PAUSED;
  agent_restored();
  vsock_reset();
  if (flag(body, "resume_vm")) {
    vm.state = RUNNING;
    vsock_resume();
  }
}
