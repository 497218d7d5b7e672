#!/bin/sh
# host-tap.sh: makes one tap in the host's own network; safe to run again.
# TAP, TAP_IP, USER_OWNS and UPLINK change it; see docs/network.md.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/scripts/lib.sh"
netns_locked host-tap "$@"
