#!/bin/sh
# Installs what forkd needs on Debian 12 or Ubuntu 24.04, and builds what is not TypeScript.
# Safe to run again: a run with nothing to do takes about a second.
#   --tests   also what only the tests need
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"

runtime_packages="$host_packages gcc:gcc make:make libc6-dev"
test_packages="docker-registry:docker-registry nginx-light:nginx python3:python3 git:git
  busybox-static:busybox cpio:cpio procps:ps qemu-utils:qemu-img prometheus:promtool
  openssl:openssl logrotate:logrotate iptables:iptables"
# Without these some tests are skipped, which the run says.
optional_packages="clang-14:clang-14 libclang-rt-14-dev python3-venv"

with_tests=no
case ${1:-} in
  --tests) with_tests=yes ;;
  "") ;;
  *) die "unknown argument: $1" "usage: scripts/setup.sh [--tests]" ;;
esac

[ "$(uname -sm)" = "Linux x86_64" ] || die "forkd runs on Linux on x86_64 only" "see README.md"

install_packages() {
  wanted=$runtime_packages
  if [ "$(node_major)" -lt 18 ]; then wanted="$wanted nodejs"; fi
  if ! command -v npm >/dev/null 2>&1; then wanted="$wanted npm"; fi
  if [ "$with_tests" = yes ]; then wanted="$wanted $test_packages"; fi
  # shellcheck disable=SC2086 # Both are lists of words.
  missing=$(missing_of $wanted)
  # These packages would start servers that listen on every address.
  for package in $missing; do
    case $package in
      docker-registry) mask_service docker-registry ;;
      nginx-light) mask_service nginx ;;
      prometheus) mask_service prometheus ;;
    esac
  done
  # shellcheck disable=SC2086 # A list of words.
  apt_install $missing
}

mask_service() {
  if [ -d /run/systemd/system ]; then as_root systemctl mask "$1.service" >&2; fi
}

install_optional() {
  # shellcheck disable=SC2086 # Both are lists of words.
  missing=$(missing_of $optional_packages)
  [ -n "$missing" ] || return 0
  say "installing by apt, if it has them: $(printf '%s' "$missing" | tr '\n' ' ')"
  # shellcheck disable=SC2086 # A list of words.
  apt_get install -y --no-install-recommends $missing || say "not to be had; some tests will skip"
}

# npm keeps no record of the whole lock file that it installed, so we do.
install_modules() {
  stamp=$root/node_modules/.forkd-lock
  if cmp -s "$root/package-lock.json" "$stamp"; then return 0; fi
  say "installing node modules"
  (cd "$root" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error </dev/null >&2) ||
    die "npm ci failed" "check the network and npm's registry setting"
  cp "$root/package-lock.json" "$stamp"
}

build_native() {
  for dir in guest native; do
    make -s -C "$root/$dir" >&2 || die "make -C $dir failed" "see the compiler's message above"
  done
}

install_packages
if [ "$with_tests" = yes ]; then install_optional; fi
[ "$(node_major)" -ge 18 ] ||
  die "Node is too old: $(node --version)" "install Node 18 or newer"
install_modules
build_native
"$root/scripts/node" --version >/dev/null
say "set up; Node $("$root/scripts/node" --version) runs the sources"
