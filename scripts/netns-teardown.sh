#!/bin/sh
# netns-teardown.sh [N] [--yes] [--include-bridge] [--include-tap]: removes the namespaces of
# children that no sandbox has. Without --yes it says what it would do.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/scripts/lib.sh"
netns_locked teardown "$@"
