#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "boot.h"
#include "files.h"
#include "bounds.h"
#include "log.h"

static void load(const char *path) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    log_line("module %s: %s", path, strerror(errno));
    return;
  }
  if (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST) {
    log_line("module %s: %s", path, strerror(errno));
  }
  close(fd);
  /* The initramfs is memory of every child: what is loaded need not stay there. */
  unlink(path);
}

void modules_load(void) {
  char *list = file_read("/forkd/modules", 65536, NULL);
  if (!list) {
    log_line("no module list; the kernel has what it needs");
    return;
  }
  int count = 0;
  char *rest = list;
  for (char *line; (line = strsep(&rest, "\n")) && count < MODULES_MAX;) {
    line[strcspn(line, " \t\r#")] = 0;
    if (!*line) continue;
    count++;
    char path[512];
    snprintf(path, sizeof path, "%s%.400s", *line == '/' ? "" : "/forkd/modules.d/", line);
    load(path);
  }
  free(list);
}
