#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files.h"
#include "tap.h"
#include "unit.h"
#include "user.h"

static const char passwd[] = "root:x:0:0:root:/root:/bin/sh\nbroken:x\napp:x:1000:100:App:/home/app:\n"
                             "4000:x:7:7::/seven:/bin/sh\nbad:x:-1:5::/:\n";
static const char group[] = "root:x:0:\nusers:x:100:app\nextra:x:101:other,app,more\nnot:x:102:apple\n";

void unit_accounts(void) {
  char dir[] = "/tmp/forkd-unit-XXXXXX";
  char path[64];
  struct user u;
  if (!check(mkdtemp(dir) != NULL, "a directory for accounts")) return;
  files_set_root(dir);
  file_write("/etc/passwd", passwd, sizeof passwd - 1, 0644);
  file_write("/etc/group", group, sizeof group - 1, 0644);
  check(user_resolve(NULL, &u) && u.uid == 0 && strcmp(u.home, "/root") == 0, "no user is root");
  check(user_resolve("app", &u) && u.uid == 1000 && u.gid == 100 && u.group_count == 2 &&
            strcmp(u.home, "/home/app") == 0,
        "a name with its groups");
  check(user_resolve("1000", &u) && u.gid == 100 && strcmp(u.home, "/home/app") == 0,
        "a number with an entry");
  check(user_resolve("5555", &u) && u.uid == 5555 && u.gid == 0 && strcmp(u.home, "/") == 0,
        "a number without one");
  check(user_resolve("5:6", &u) && u.uid == 5 && u.gid == 6 && u.group_count == 0, "uid:gid");
  check(user_resolve("app:extra", &u) && u.gid == 101, "name:group");
  static const char *const bad[] = {"nobody-here", "bad", "-1", "4294967295", "app:none", ":", "1x"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    check(!user_resolve(bad[i], &u), "no such user: %s", bad[i]);
  }
  files_set_root("");
  for (int i = 0; i < 2; i++) {
    snprintf(path, sizeof path, "%s/etc/%s", dir, i ? "passwd" : "group");
    unlink(path);
  }
  snprintf(path, sizeof path, "%s/etc", dir);
  rmdir(path);
  rmdir(dir);
}
