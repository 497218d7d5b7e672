/* A Node add-on of one call: makes OpenSSL seed itself again from the kernel.
 *
 * Node has no interface for that, and a forked guest has a copy of its parent's generator: keys,
 * TLS randoms and randomBytes would repeat in every child. RAND_poll reseeds the primary generator;
 * those of all threads notice and take new seed from it before their next output. Needs no libc, so
 * that one object serves glibc and musl; node itself exports the symbols. */
typedef struct napi_env_s *env_t;
typedef struct napi_value_s *value_t;
typedef struct napi_info_s *info_t;

int napi_create_function(env_t env, const char *name, unsigned long length,
                         value_t (*fn)(env_t, info_t), void *data, value_t *result);
int napi_get_boolean(env_t env, _Bool value, value_t *result);
/* Weak: an interpreter without OpenSSL loads this as well, and is told so. */
int RAND_poll(void) __attribute__((weak));
value_t napi_register_module_v1(env_t env, value_t exports);

static value_t reseed(env_t env, info_t info) {
  (void)info;
  value_t result = 0;
  napi_get_boolean(env, RAND_poll && RAND_poll() == 1, &result);
  return result;
}

value_t napi_register_module_v1(env_t env, value_t exports) {
  value_t fn = 0;
  /* -1: the name ends at its NUL. The export is the function itself. */
  if (napi_create_function(env, "reseed", (unsigned long)-1, reseed, 0, &fn) != 0) return exports;
  return fn;
}
