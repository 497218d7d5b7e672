/* What PID 1 does before it serves: the file systems, modules, devices. */
#ifndef FORKD_BOOT_H
#define FORKD_BOOT_H

struct boot_options {
  char root[64];
  char scratch[64];
  char channel[128];
  unsigned long upper_mib;
};

/* Parses /proc/cmdline. */
void boot_options_read(struct boot_options *options);
/* First mounts, inside the initramfs, with the console as standard error. */
void boot_early(void);
/* Loads /forkd/modules in order (modules.c). */
void modules_load(void);
/* The overlay above the root image, entered by chroot (mounts.c). Ends the guest when it cannot. */
void mounts_enter_root(const struct boot_options *options);
/* The loopback interface. */
void boot_loopback(void);
/* Before all that it starts, which does not inherit it: a guest that is busy answers all the same. */
void boot_priority(void);
/* Silences the interval timer when it does not drive the clock. */
void boot_stop_pit(void);
/* Waits for a node in /dev by events, at most DEVICE_WAIT_MS. */
void device_wait(const char *name);

#endif
