/* The form of every request, as upstream's serde has it: unknown members are refused. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "fake.h"

enum kind { TEXT, UINT, FLAG, OBJECT, ARRAY };

struct member {
  const char *name;
  enum kind kind;
  bool required;
  unsigned since; /* version */
  const char *among; /* the values of a text, with | around each */
};

struct endpoint {
  const char *method;
  const char *path; /* a last part of {} stands for an id */
  handler_fn *handler;
  const struct member *members; /* NULL: no body */
};

static const struct member boot_source[] = {{"kernel_image_path", TEXT, true, 0, NULL},
                                            {"initrd_path", TEXT, false, 0, NULL},
                                            {"boot_args", TEXT, false, 0, NULL},
                                            {0}};
static const struct member machine[] = {
    {"vcpu_count", UINT, true, 0, NULL},
    {"mem_size_mib", UINT, true, 0, NULL},
    {"smt", FLAG, false, 0, NULL},
    {"track_dirty_pages", FLAG, false, 0, NULL},
    {"cpu_template", TEXT, false, 0, "|C3|T2|T2S|T2CL|T2A|V1N1|None|"},
    {"huge_pages", TEXT, false, 0, "|None|2M|"},
    {0}};
static const struct member cpu[] = {{"kvm_capabilities", ARRAY, false, 0, NULL},
                                    {"cpuid_modifiers", ARRAY, false, 0, NULL},
                                    {"msr_modifiers", ARRAY, false, 0, NULL},
                                    {0}};
static const struct member drive[] = {{"drive_id", TEXT, true, 0, NULL},
                                      {"partuuid", TEXT, false, 0, NULL},
                                      {"is_root_device", FLAG, true, 0, NULL},
                                      {"cache_type", TEXT, false, 0, "|Unsafe|Writeback|"},
                                      {"is_read_only", FLAG, false, 0, NULL},
                                      {"path_on_host", TEXT, false, 0, NULL},
                                      {"rate_limiter", OBJECT, false, 0, NULL},
                                      {"io_engine", TEXT, false, 0, "|Sync|Async|"},
                                      {"socket", TEXT, false, 0, NULL},
                                      {0}};
static const struct member drive_patch[] = {{"drive_id", TEXT, true, 0, NULL},
                                            {"path_on_host", TEXT, false, 0, NULL},
                                            {"rate_limiter", OBJECT, false, 0, NULL},
                                            {0}};
static const struct member net[] = {{"iface_id", TEXT, true, 0, NULL},
                                    {"host_dev_name", TEXT, true, 0, NULL},
                                    {"guest_mac", TEXT, false, 0, NULL},
                                    {"mtu", UINT, false, 11600, NULL},
                                    {"rx_rate_limiter", OBJECT, false, 0, NULL},
                                    {"tx_rate_limiter", OBJECT, false, 0, NULL},
                                    {0}};
static const struct member vsock[] = {{"guest_cid", UINT, true, 0, NULL},
                                      {"uds_path", TEXT, true, 0, NULL},
                                      {"vsock_id", TEXT, false, 0, NULL},
                                      {0}};
static const struct member entropy[] = {{"rate_limiter", OBJECT, false, 0, NULL}, {0}};
static const struct member action[] = {
    {"action_type", TEXT, true, 0, "|FlushMetrics|InstanceStart|SendCtrlAltDel|"}, {0}};
static const struct member run_state[] = {{"state", TEXT, true, 0, "|Paused|Resumed|"}, {0}};
static const struct member create[] = {{"mem_file_path", TEXT, true, 0, NULL},
                                       {"snapshot_path", TEXT, true, 0, NULL},
                                       {"snapshot_type", TEXT, false, 0, "|Full|Diff|"},
                                       {0}};
static const struct member load[] = {{"snapshot_path", TEXT, true, 0, NULL},
                                     {"mem_file_path", TEXT, false, 0, NULL},
                                     {"mem_backend", OBJECT, false, 0, NULL},
                                     {"enable_diff_snapshots", FLAG, false, 0, NULL},
                                     {"track_dirty_pages", FLAG, false, 11300, NULL},
                                     {"resume_vm", FLAG, false, 0, NULL},
                                     {"network_overrides", ARRAY, false, 11200, NULL},
                                     {"vsock_override", OBJECT, false, 11600, NULL},
                                     {"clock_realtime", FLAG, false, 11600, NULL},
                                     {0}};

static const struct endpoint endpoints[] = {
    {"GET", "/", do_describe, NULL},
    {"GET", "/version", do_version, NULL},
    {"PUT", "/machine-config", do_machine, machine},
    {"PUT", "/cpu-config", do_cpu, cpu},
    {"PUT", "/boot-source", do_boot_source, boot_source},
    {"PUT", "/drives/{}", do_drive, drive},
    {"PATCH", "/drives/{}", do_patch_drive, drive_patch},
    {"PUT", "/network-interfaces/{}", do_net, net},
    {"PUT", "/vsock", do_vsock, vsock},
    {"PUT", "/entropy", do_entropy, entropy},
    {"PUT", "/actions", do_action, action},
    {"PATCH", "/vm", do_vm, run_state},
    {"PUT", "/snapshot/create", do_create, create},
    {"PUT", "/snapshot/load", do_load, load},
};

handler_fn *endpoint_handler(const struct endpoint *e) { return e->handler; }
const char *endpoint_name(const struct endpoint *e) { return e->path; }

void answer_fault(struct answer *a, const char *format, ...) {
  char words[600];
  va_list args;
  va_start(args, format);
  vsnprintf(words, sizeof words, format, args);
  va_end(args);
  a->status = 400;
  buf_clear(&a->body);
  struct jw w;
  jw_init(&w, &a->body);
  jw_open(&w, NULL, '{');
  jw_string(&w, "fault_message", words);
  jw_close(&w, '}');
}

/* The id in the path, when `pattern` has one; NULL when it does not fit. */
static const char *match(const char *pattern, const char *path) {
  size_t fixed = strcspn(pattern, "{");
  if (!pattern[fixed]) return strcmp(pattern, path) == 0 ? "" : NULL;
  if (strncmp(pattern, path, fixed) != 0) return NULL;
  const char *id = path + fixed;
  return *id && !strchr(id, '/') ? id : NULL;
}

static const char form_lead[] = "An error occurred when deserializing the json body of a request:";

static bool is_kind(const struct json *value, const struct member *m) {
  char quoted[128];
  switch (m->kind) {
    case TEXT:
      if (value->type != JSON_STRING || !json_string(value)) return false;
      snprintf(quoted, sizeof quoted, "|%.100s|", value->str);
      return !m->among || strstr(m->among, quoted) != NULL;
    case UINT:
      return value->type == JSON_NUMBER && value->number >= 0 &&
             value->number == (double)(uint64_t)value->number;
    case FLAG: return value->type == JSON_BOOL;
    case OBJECT: return value->type == JSON_OBJECT;
    case ARRAY: return value->type == JSON_ARRAY;
  }
  return false;
}

static const struct member *find(const struct member *members, const struct json *value) {
  for (const struct member *m = members; m->name; m++) {
    if (m->since <= fake_version && strcmp(m->name, value->key) == 0) return m;
  }
  return NULL;
}

/* `A`, `B` or `C`, of |A|B|C|. */
static void fault_variant(const char *said, const char *among, struct answer *a) {
  char list[256] = "";
  size_t len = 0;
  for (const char *at = among + 1; *at; at += strcspn(at, "|") + 1) {
    int word = (int)strcspn(at, "|");
    len += (size_t)snprintf(list + len, sizeof list - len, "%s`%.*s`", len ? ", " : "", word, at);
  }
  answer_fault(a, "%s unknown variant `%s`, expected one of %s.", form_lead, said, list);
}

static bool check_body(const struct member *members, const struct json *body, struct answer *a) {
  if (body->type != JSON_OBJECT) {
    answer_fault(a, "%s invalid type, expected a map.", form_lead);
    return false;
  }
  for (const struct json *v = body->child; v; v = v->next) {
    const struct member *m = find(members, v);
    if (!m) {
      answer_fault(a, "%s unknown field `%s`.", form_lead, v->key);
      return false;
    }
    if (!is_kind(v, m)) {
      if (m->among && json_string(v)) fault_variant(json_string(v), m->among, a);
      else answer_fault(a, "%s invalid value for `%s`.", form_lead, m->name);
      return false;
    }
  }
  for (const struct member *m = members; m->name; m++) {
    if (m->required && !json_get(body, m->name)) {
      answer_fault(a, "%s missing field `%s`.", form_lead, m->name);
      return false;
    }
  }
  return true;
}

/* The id of the path and that of the body must be one. */
static bool check_id(const char *id, const struct json *body, struct answer *a) {
  static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_";
  if (!*id) return true;
  const char *own = json_get_string(body, "drive_id");
  if (!own) own = json_get_string(body, "iface_id");
  if (id[strspn(id, letters)]) {
    answer_fault(a, "API Resource IDs can only contain alphanumeric characters and underscores.");
  } else if (!own || strcmp(own, id) != 0) {
    answer_fault(a, "The id from the path does not match the id from the body!");
  } else {
    return true;
  }
  return false;
}

const struct endpoint *contract_check(const char *method, const char *path,
                                      const struct json *body, struct answer *a) {
  for (size_t i = 0; i < sizeof endpoints / sizeof *endpoints; i++) {
    const struct endpoint *e = &endpoints[i];
    const char *id = match(e->path, path);
    if (!id || strcmp(method, e->method) != 0) continue;
    if (!e->members) {
      if (!body) return e;
      answer_fault(a, "GET request cannot have a body.");
      return NULL;
    }
    if (!body) {
      answer_fault(a, "Empty %s request.", method);
      return NULL;
    }
    return check_body(e->members, body, a) && check_id(id, body, a) ? e : NULL;
  }
  /* Upstream names the first part of the path alone. */
  path += strspn(path, "/");
  answer_fault(a, "Invalid request method and/or path: %s %.*s.", method, (int)strcspn(path, "/"),
               path);
  return NULL;
}
