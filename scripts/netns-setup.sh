#!/bin/sh
# netns-setup.sh [N [USER]]: makes network namespaces 1 to N for children; safe to run again.
# BRIDGE, BRIDGE_IP and UPLINK change the layout; see docs/network.md.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/scripts/lib.sh"
netns_locked setup "$@"
