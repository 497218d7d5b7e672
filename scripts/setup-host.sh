#!/bin/sh
# Prepares a Debian or Ubuntu host to run forkd: looks at processor and KVM, installs packages,
# shares memory of guests (KSM). Says what it changed; a second run changes nothing.
#   --user NAME                     also let this user open /dev/kvm; else who called sudo
#   --firecracker FILE --sha256 H   install Firecracker from a release's archive or its program
#   --hugepages N                   set aside N pages of 2 MiB; 0 gives them back
#   --no-packages                   install nothing by apt
#   --dry-run                       only say what would be changed
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"

user=${SUDO_USER:-}
firecracker=
sha256=
hugepages=
packages=yes
dry_run=no
changes=0
warnings=0

usage() {
  die "$1" "usage: scripts/setup-host.sh [--user NAME] [--firecracker FILE --sha256 HASH]
      [--hugepages N] [--no-packages] [--dry-run]"
}

while [ $# -gt 0 ]; do
  case $1 in
    --user | --firecracker | --sha256 | --hugepages) [ $# -ge 2 ] || usage "$1 needs a value" ;;
  esac
  case $1 in
    --user) user=$2; shift ;;
    --firecracker) firecracker=$2; shift ;;
    --sha256) sha256=$2; shift ;;
    --hugepages) hugepages=$2; shift ;;
    --no-packages) packages=no ;;
    --dry-run) dry_run=yes ;;
    *) usage "unknown argument: $1" ;;
  esac
  shift
done
if [ -n "$user" ] && ! id "$user" >/dev/null 2>&1; then usage "there is no user $user"; fi
case $hugepages in *[!0-9]*) usage "--hugepages takes a number of pages, not $hugepages" ;; esac
if [ -n "$firecracker$sha256" ] && { [ -z "$firecracker" ] || [ -z "$sha256" ]; }; then
  usage "--firecracker and --sha256 must come together"
fi

ok() { printf 'ok: %s\n' "$*"; }

warn() {
  warnings=$((warnings + 1))
  printf 'warning: %s\n' "$*"
}

# change WHAT COMMAND... does it, or says that it would.
change() {
  what=$1
  shift
  changes=$((changes + 1))
  if [ "$dry_run" = yes ]; then
    printf 'would change: %s\n' "$what"
    return 0
  fi
  "$@" || die "could not change: $what" "see the message above"
  printf 'changed: %s\n' "$what"
}

# write_file TEXT PATH replaces a file in one step; a small system lacks its directory.
write_file() {
  mkdir -p "$(dirname "$2")"
  (umask 022 && printf '%s\n' "$1" >"$2.new") && mv "$2.new" "$2"
}

# keep_file TEXT PATH makes sure that a file of ours has this text.
keep_file() {
  if [ "$(cat "$2" 2>/dev/null || true)" = "$1" ]; then return 0; fi
  change "$2, so that it lasts over a restart" write_file "$1" "$2"
}

# set_value VALUE PATH writes a setting of the running kernel, which may take less than it is given.
set_value() { printf '%s\n' "$1" >"$2"; }

# keep_value VALUE PATH
keep_value() {
  if [ "$(cat "$2")" = "$1" ]; then return 0; fi
  change "$2 from $(cat "$2") to $1" set_value "$1" "$2"
}

check_processor() {
  [ "$(uname -sm)" = "Linux x86_64" ] || die "forkd runs on Linux on x86_64 only" "see README.md"
  if grep -Eqw 'vmx|svm' /proc/cpuinfo; then ok "the processor can virtualise"
  else
    warn "the processor shows no vmx or svm: turn on VT-x or AMD-V in the firmware, or nested" \
      "virtualisation of the machine around this one; guests are emulated until then"
  fi
}

check_kvm() {
  if [ ! -e /dev/kvm ]; then
    for module in kvm_intel kvm_amd; do
      if [ "$dry_run" = no ]; then modprobe -q "$module" 2>/dev/null || true; fi
    done
  fi
  if [ ! -e /dev/kvm ]; then
    warn "there is no /dev/kvm: guests are emulated, which is much slower"
    return 0
  fi
  ok "/dev/kvm is there"
}

# After the packages: on a small system the group comes with one of them.
allow_user() {
  if [ ! -e /dev/kvm ] || [ -z "$user" ] || [ "$user" = root ]; then return 0; fi
  if ! getent group kvm >/dev/null; then
    warn "there is no group kvm for $user: udev makes it; only root opens /dev/kvm until then"
    return 0
  fi
  case " $(id -nG "$user") " in
    *" kvm "*) ok "$user may open /dev/kvm" ;;
    *) change "user $user into group kvm, from the next log-in on" usermod -aG kvm "$user" ;;
  esac
}

install_packages() {
  [ "$packages" = yes ] || return 0
  # shellcheck disable=SC2086 # A list of words.
  missing=$(missing_of $host_packages | tr '\n' ' ')
  if [ -z "$missing" ]; then
    ok "all packages are installed"
    return 0
  fi
  # shellcheck disable=SC2086 # A list of words.
  change "packages: $missing" apt_install $missing
}

check_cgroups() {
  if [ -e /sys/fs/cgroup/cgroup.controllers ]; then ok "cgroup v2 is mounted"
  else warn "cgroup v2 is not mounted: limits may not be enforced; see docs/host-limits.md"
  fi
}

# Pages that guests have in common after the fork are found again by the kernel.
share_memory() {
  dir=/sys/kernel/mm/ksm
  if [ ! -w "$dir/run" ]; then
    warn "$dir cannot be written: this kernel does not share equal pages"
    return 0
  fi
  keep_value 200 "$dir/sleep_millisecs"
  keep_value 1000 "$dir/pages_to_scan"
  keep_value 1 "$dir/run"
  keep_file "w $dir/sleep_millisecs - - - - 200
w $dir/pages_to_scan - - - - 1000
w $dir/run - - - - 1" /etc/tmpfiles.d/forkd.conf
  ok "equal pages of guests are shared"
}

set_hugepages() {
  [ -n "$hugepages" ] || return 0
  keep_value "$hugepages" /proc/sys/vm/nr_hugepages
  keep_file "vm.nr_hugepages = $hugepages" /etc/sysctl.d/60-forkd.conf
  got=$(cat /proc/sys/vm/nr_hugepages)
  if [ "$dry_run" = no ] && [ "$got" != "$hugepages" ]; then
    warn "the kernel found room for $got of $hugepages huge pages; try again after a restart"
  fi
}

# A directory is named by the version and the hash of the program that is in it.
install_firecracker() {
  [ -n "$firecracker" ] || return 0
  kept=${FORKD_DATA_DIR:-/var/lib/forkd}/firecracker
  before=$(ls "$kept" 2>/dev/null || true)
  if [ "$dry_run" = yes ]; then
    change "Firecracker in $kept, unless it is this one" true
    return 0
  fi
  "$root/bin/forkd" firecracker install --from "$firecracker" --sha256 "$sha256" >/dev/null ||
    die "Firecracker was not installed" "see the message above and docs/firecracker.md"
  after=$(ls "$kept")
  if [ "$before" = "$after" ]; then ok "this Firecracker is installed: $after"
  else change "Firecracker in $kept: $after" true
  fi
}

if [ "$dry_run" = no ] && [ "$(id -u)" -ne 0 ]; then
  die "this changes the host, so it needs root" "run: sudo $0, or add --dry-run"
fi
check_processor
check_kvm
check_cgroups
install_packages
allow_user
share_memory
set_hugepages
install_firecracker
if [ "$changes" = 0 ]; then say "nothing to change, $warnings warnings"
elif [ "$dry_run" = yes ]; then say "$changes changes to make, $warnings warnings"
else say "$changes changes made, $warnings warnings; then: forkd doctor"
fi
