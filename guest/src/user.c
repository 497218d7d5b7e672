#include "user.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "files.h"

/* Parses a whole decimal number up to 2^32 - 2 (the last one means "no change"). */
static bool parse_id(const char *text, uint32_t *out) {
  if (*text < '0' || *text > '9' || strlen(text) > 10) return false;
  char *end;
  unsigned long long n = strtoull(text, &end, 10);
  if (*end || n > 0xfffffffe) return false;
  *out = (uint32_t)n;
  return true;
}

/* The next line of *text, split at colons into at most `max` fields; 0 at the end. */
static int next_entry(char **text, char **fields, int max) {
  if (!**text) return 0;
  char *line = *text;
  char *eol = strchr(line, '\n');
  *text = eol ? eol + 1 : line + strlen(line);
  if (eol) *eol = 0;
  int n = 0;
  while (line && n < max) {
    fields[n++] = line;
    line = strchr(line, ':');
    if (line) *line++ = 0;
  }
  return n;
}

/* Finds the account by name or by number; takes its group, home and name. */
static bool find_account(const char *name, struct user *out, char *account, size_t account_max) {
  char *file = file_read("/etc/passwd", ACCOUNT_FILE_BYTES_MAX, NULL);
  if (!file) return false;
  uint32_t wanted;
  bool by_number = parse_id(name, &wanted);
  bool found = false;
  char *at = file;
  char *f[7];
  int n;
  while (!found && (n = next_entry(&at, f, 7)) > 0) {
    uint32_t uid;
    uint32_t gid;
    if (n < 6 || !parse_id(f[2], &uid) || !parse_id(f[3], &gid)) continue;
    if (strcmp(f[0], name) != 0 && !(by_number && uid == wanted)) continue;
    found = true;
    out->uid = uid;
    out->gid = gid;
    if (*f[5] && strlen(f[5]) < sizeof out->home) strcpy(out->home, f[5]);
    if (strlen(f[0]) < account_max) strcpy(account, f[0]);
  }
  free(file);
  return found;
}

static bool in_list(const char *list, const char *name) {
  size_t len = strlen(name);
  for (const char *p = list; p; p = strchr(p, ',')) {
    if (*p == ',') p++;
    if (strncmp(p, name, len) == 0 && (p[len] == ',' || p[len] == 0)) return true;
  }
  return false;
}

/* Groups whose member list names the account; or, with `wanted`, the number of that group. */
static bool read_groups(const char *account, const char *wanted, struct user *out) {
  char *file = file_read("/etc/group", ACCOUNT_FILE_BYTES_MAX, NULL);
  if (!file) return false;
  bool found = false;
  char *at = file;
  char *f[4];
  int n;
  while ((n = next_entry(&at, f, 4)) > 0) {
    uint32_t gid;
    if (n < 3 || !parse_id(f[2], &gid)) continue;
    if (wanted && strcmp(f[0], wanted) == 0) {
      out->gid = gid;
      found = true;
    }
    if (!wanted && n == 4 && *account && in_list(f[3], account) && out->group_count < GROUPS_MAX) {
      out->groups[out->group_count++] = gid;
    }
  }
  free(file);
  return found;
}

bool user_resolve(const char *spec, struct user *out) {
  memset(out, 0, sizeof *out);
  strcpy(out->home, "/");
  if (!spec || !*spec) spec = "0";
  char name[256];
  if (strlen(spec) >= sizeof name) return false;
  strcpy(name, spec);
  char *group = strchr(name, ':');
  if (group) *group++ = 0;

  char account[256] = "";
  if (!find_account(name, out, account, sizeof account)) {
    uint32_t uid;
    bool root = strcmp(name, "root") == 0;
    if (!root && !parse_id(name, &uid)) return false;
    out->uid = root ? 0 : uid;
    out->gid = 0;
  }
  if (out->uid == 0 && strcmp(out->home, "/") == 0 && !*account) strcpy(out->home, "/root");
  if (!group) {
    read_groups(account, NULL, out);
    return true;
  }
  uint32_t gid;
  if (!parse_id(group, &gid)) return read_groups("", group, out);
  out->gid = gid;
  return true;
}
