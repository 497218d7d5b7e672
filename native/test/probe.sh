#!/bin/sh
# Tests build/forkd-probe; prints TAP.
set -eu
# shellcheck source=native/test/tap.sh
. "$(dirname -- "$0")/tap.sh"
probe=$(CDPATH='' cd -- "$(dirname -- "$0")/../build" && pwd)/forkd-probe
said=$("$probe")

names="userfaultfd uffd-wp-private memfd uffd-wp-shmem pagemap-scan clock"
check "each call is tried once" "$names" "$(printf '%s\n' "$said" | cut -d' ' -f1 | xargs)"
check "each line says ok, or which error" 0 \
  "$(printf '%s\n' "$said" | grep -Evc '^[a-z-]+ (ok|[0-9]+ .+)$' || true)"

# With no descriptor to be had, nothing that needs one works, and the program still ends well.
starved=$(ulimit -n 3 && "$probe")
check "what does not work has the kernel's reason" 5 \
  "$(printf '%s\n' "$starved" | grep -Ec '^(userfaultfd|uffd-wp-[a-z]+|memfd|pagemap-scan) 24 ' || true)"
