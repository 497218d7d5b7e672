#include <dirent.h>
#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "client.h"

/* Where this machine has cgroup v2 mounted. */
static bool find_mount(char out[256]) {
  FILE *mounts = setmntent("/proc/self/mounts", "r");
  bool found = false;
  for (struct mntent *m; mounts && !found && (m = getmntent(mounts));) {
    found = strcmp(m->mnt_type, "cgroup2") == 0;
    if (found) snprintf(out, 256, "%.200s", m->mnt_dir);
  }
  if (mounts) endmntent(mounts);
  return found;
}

bool cgroup_make(char out[256]) {
  char mount[256];
  char file[300];
  if (!find_mount(mount)) return false;
  snprintf(out, 256, "%.200s/forkd-test-%d", mount, getpid());
  if (mkdir(out, 0755) < 0) return false;
  snprintf(file, sizeof file, "%.256s/cgroup.freeze", out);
  if (access(file, W_OK) == 0) return true;
  rmdir(out);
  return false;
}

/* The dead leave their cgroup a moment after they are killed. */
static bool remove_soon(const char *path) {
  for (int i = 0; i < 200; i++) {
    if (rmdir(path) == 0) return true;
    struct timespec t = {0, 10000000};
    nanosleep(&t, NULL);
  }
  return false;
}

bool cgroup_remove(const char *path) {
  char file[300];
  char child[600];
  snprintf(file, sizeof file, "%.256s/cgroup.kill", path);
  FILE *kill = fopen(file, "w");
  if (kill) {
    fputs("1", kill);
    fclose(kill);
  }
  DIR *dir = opendir(path);
  for (struct dirent *e; dir && (e = readdir(dir));) {
    if (e->d_type != DT_DIR || e->d_name[0] == '.') continue;
    snprintf(child, sizeof child, "%.256s/%.255s", path, e->d_name);
    remove_soon(child);
  }
  if (dir) closedir(dir);
  return remove_soon(path);
}
