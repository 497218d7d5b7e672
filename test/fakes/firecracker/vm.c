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
    answer_fault(a, "Machine config error: The vCPU number is invalid!");
  } else if (mib == 0 || mib > VM_MIB_MAX) {
    answer_fault(a, "Machine config error: The memory size (MiB) is invalid.");
  } else {
    vm.vcpus = vcpus;
    vm.mem_mib = mib;
    vm.tracks = flag(body, "track_dirty_pages");
    vm.configured = true;
  }
}

void do_cpu(const struct json *body, struct answer *a) {
  (void)body;
  if (before_start(a)) vm.configured = true;
}

void do_boot_source(const struct json *body, struct answer *a) {
  if (!before_start(a)) return;
  copy(vm.kernel, sizeof vm.kernel, body, "kernel_image_path");
  copy(vm.initrd, sizeof vm.initrd, body, "initrd_path");
  copy(vm.boot_args, sizeof vm.boot_args, body, "boot_args");
  vm.configured = true;
  if (access(vm.kernel, R_OK) != 0 || (*vm.initrd && access(vm.initrd, R_OK) != 0)) {
    answer_fault(a, "Boot source error: The kernel file cannot be opened: %s (os error %d)",
                 strerror(errno), errno);
  }
}

static bool drive_open(struct drive *d, char why[256]) {
  d->fd = open(d->path, (d->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
  if (d->fd >= 0) return true;
  snprintf(why, 256, "Unable to open the backing file %.100s: %s (os error %d)", d->path,
           strerror(errno), errno);
  return false;
}

void do_drive(const struct json *body, struct answer *a) {
  char why[256];
  if (!before_start(a)) return;
  vm.configured = true;
  if (vm.drive_count == DRIVES_MAX) {
    answer_fault(a, "Drive config error: Too many devices.");
    return;
  }
  struct drive *d = &vm.drives[vm.drive_count];
  copy(d->id, sizeof d->id, body, "drive_id");
  copy(d->path, sizeof d->path, body, "path_on_host");
  d->read_only = flag(body, "is_read_only");
  if (drive_open(d, why)) {
    vm.drive_count++;
  } else {
    answer_fault(a, "Drive config error: %s", why);
  }
}

void do_patch_drive(const struct json *body, struct answer *a) {
  (void)body;
  after_start(a);
}

void do_net(const struct json *body, struct answer *a) {
  (void)body;
  if (before_start(a)) vm.configured = true;
}

void do_vsock(const struct json *body, struct answer *a) {
  if (!before_start(a)) return;
  vm.configured = true;
  if (number(body, "guest_cid") < 3) {
    answer_fault(a, "Vsock config error: the CID is reserved.");
    return;
  }
  copy(vm.vsock, sizeof vm.vsock, body, "uds_path");
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
  char why[256];
  if (!*vm.kernel) {
    answer_fault(a, "Start microvm error: Cannot start microvm without kernel configuration.");
  } else if (!is_elf(vm.kernel)) {
    answer_fault(a, "Start microvm error: Cannot load kernel due to invalid memory configuration or"
                    " invalid kernel image: Invalid Elf magic number");
  } else if (*vm.vsock && !vsock_open(why)) {
    answer_fault(a, "Start microvm error: %s", why);
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
  vm.state = run ? RUNNING : PAUSED;
  vsock_run(run);
}

void do_create(const struct json *body, struct answer *a) {
  char why[256] = "";
  if (!after_start(a)) return;
  if (vm.state == RUNNING) {
    answer_fault(a, "Create snapshot error: Cannot save the microVM state: Operation not allowed:"
                    " save/restore is only possible in the Paused state");
    return;
  }
  const char *type = json_get_string(body, "snapshot_type");
  bool diff = type && strcmp(type, "Diff") == 0;
  if (diff && !vm.tracks) {
    answer_fault(a, "Create snapshot error: Cannot get dirty bitmap: No such file or directory"
                    " (os error 2)");
  } else if (!state_save(json_get_string(body, "snapshot_path"), why) ||
             !ram_dump(json_get_string(body, "mem_file_path"), diff, why)) {
    answer_fault(a, "Create snapshot error: %s", why);
  }
}

static bool restore(const struct json *body, char why[256]) {
  const struct json *backend = json_get(body, "mem_backend");
  const char *path = backend ? json_get_string(backend, "backend_path") : NULL;
  if (!path) path = json_get_string(body, "mem_file_path");
  if (!path) {
    snprintf(why, 256, "no memory");
    return false;
  }
  if (!state_load(json_get_string(body, "snapshot_path"), why)) return false;
  const struct json *override = json_get(body, "vsock_override");
  if (override) copy(vm.vsock, sizeof vm.vsock, override, "uds_path");
  for (size_t i = 0; i < vm.drive_count; i++) {
    if (!drive_open(&vm.drives[i], why)) return false;
  }
  return ram_private(path, vm.mem_mib, why) && (!*vm.vsock || vsock_open(why));
}

void do_load(const struct json *body, struct answer *a) {
  char why[256] = "";
  if (!before_start(a)) return;
  if (vm.configured) {
    answer_fault(a, "Load snapshot error: Loading a microVM snapshot not allowed after configuring"
                    " boot-specific resources.");
    return;
  }
  const struct json *backend = json_get(body, "mem_backend");
  const char *type = backend ? json_get_string(backend, "backend_type") : "File";
  bool one = (backend != NULL) != (json_get(body, "mem_file_path") != NULL);
  if (!one || !type || strcmp(type, "File") != 0) {
    answer_fault(a, "An error occurred when deserializing the json body of a request: the memory"
                    " backend is not one that is known.");
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
  if (flag(body, "resume_vm")) {
    vm.state = RUNNING;
    vsock_run(true);
  }
}
