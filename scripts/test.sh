#!/bin/sh
# Installs what is missing and runs all tests, or the projects that are named.
# The last line is `N passed, N failed[, N skipped]`.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
if ! "$root/scripts/setup.sh" --tests; then
  echo "set-up failed, so no test ran"
  echo "0 passed, 1 failed"
  exit 1
fi
cd "$root"
exec "$root/scripts/node" test/run.ts "$@" </dev/null
