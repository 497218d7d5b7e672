#!/bin/sh
# From a clean checkout to ten verified microVMs: sets up, bakes a warm parent, forks children.
# Arguments go to `forkd quickstart`.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
"$root/scripts/setup.sh"
exec "$root/bin/forkd" quickstart "$@"
