#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "boot.h"
#include "cells.h"
#include "file-worker.h"
#include "files.h"
#include "identity.h"
#include "job.h"
#include "bounds.h"
#include "log.h"
#include "loop.h"
#include "port.h"
#include "reap.h"
#include "runtime.h"
#include "session.h"
#include "tcp.h"
#include "vsock.h"

static void serve(unsigned tcp_port) {
  if (tcp_port) tcp_start(tcp_port);
  loop_run();
}

static void run_guest(void) {
  struct boot_options options;
  boot_early();
  log_line("version %s", AGENT_VERSION);
  boot_options_read(&options);
  log_line("load modules");
  modules_load();
  boot_stop_pit();
  mounts_enter_root(&options);
  boot_loopback();
  boot_priority();
  loop_init();
  log_line("make the cgroups");
  cells_init("/sys/fs/cgroup");
  reap_init();
  log_line("open the channel %s", options.channel);
  unsigned port = vsock_port(options.channel);
  int fd = port ? -1 : port_open(options.channel, DEVICE_WAIT_MS);
  if (fd < 0 && !port) log_fatal("no virtio-serial port named %s", options.channel);
  log_line("serving");
  session_start(fd, false);
  if (port) vsock_start(port);
  serve(TCP_PORT);
}

/* A whole number after an option. */
static unsigned number(const char *text) {
  char *end;
  unsigned long n = text ? strtoul(text, &end, 10) : 0;
  if (!text || !*text || *end || n > 65535) log_fatal("not a number: %s", text ? text : "");
  return (unsigned)n;
}

/* On a development host: the channel on an inherited socket, nothing of the host is changed. */
static void run_test(int argc, char **argv) {
  int fd = -1;
  unsigned port = 0;
  for (int i = 1; i < argc; i += 2) {
    const char *value = i + 1 < argc ? argv[i + 1] : NULL;
    if (strcmp(argv[i], "--test-channel") == 0) {
      fd = (int)number(value);
    } else if (strcmp(argv[i], "--tcp-port") == 0) {
      port = number(value);
    } else if (strcmp(argv[i], "--root") == 0 && value) {
      files_set_root(value);
    } else if (strcmp(argv[i], "--runtime-dir") == 0 && value) {
      runtime_set_dir(value);
    } else if (strcmp(argv[i], "--cgroup-dir") == 0 && value) {
      cells_init(value);
    } else {
      log_fatal("unknown option %s", argv[i]);
    }
  }
  if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) log_fatal("--test-channel must be an open descriptor");
  identity_simulate();
  loop_init();
  reap_init();
  session_start(fd, true);
  serve(port);
  job_kill_all();
  runtime_kill();
}

int main(int argc, char **argv) {
  umask(022);
  if (getpid() == 1 && argc == 1) {
    run_guest();
  } else if (argc == 2 && strcmp(argv[1], "--version") == 0) {
    printf("forkd-agent %s (protocol %d)\n", AGENT_VERSION, PROTOCOL_VERSION);
  } else if (argc > 1 && strcmp(argv[1], FILE_WORKER_WORD) == 0) {
    return file_worker(argc - 2, argv + 2);
  } else if (getpid() != 1 && argc > 1) {
    run_test(argc, argv);
  } else {
    fprintf(stderr, "usage: forkd-agent --test-channel FD [--tcp-port N] [--root DIR]"
                    " [--runtime-dir DIR] [--cgroup-dir DIR]\n");
    return 2;
  }
  return 0;
}
