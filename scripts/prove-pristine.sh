#!/usr/bin/env bash
# Proves the two commands of the README on a machine that has nothing: makes a minimal Debian 12
# root with any Node >= 18, puts a clean clone of this repository's HEAD in it, and runs them there
# in a namespace of its own. Needs root and mmdebstrap. Everything is removed at the end.
#   --setup-only   only ./scripts/setup.sh, twice
#   --tests        ./scripts/test.sh too
#   --keep         leave the root for a look; its path is printed
set -euo pipefail
repo=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
suite=${FORKD_PRISTINE_SUITE:-bookworm}
setup_only=no tests=no keep=no

for argument in "$@"; do
  case $argument in
    --setup-only) setup_only=yes ;;
    --tests) tests=yes ;;
    --keep) keep=yes ;;
    *) echo "usage: scripts/prove-pristine.sh [--setup-only] [--tests] [--keep]" >&2; exit 2 ;;
  esac
done
[ "$(id -u)" -eq 0 ] || { echo "error: this needs root" >&2; exit 1; }

work=$(mktemp -d "${TMPDIR:-/var/tmp}/forkd-pristine-XXXXXX")
target=$work/root

clean_up() {
  if [ "$keep" = yes ]; then echo "kept: $target"; return; fi
  # All mounts were made in a namespace that has ended; one that is left must not be descended into.
  rm -rf --one-file-system -- "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

make_root() {
  mmdebstrap --quiet --mode=root --variant=minbase \
    --include=ca-certificates,git,nodejs,npm "$suite" "$target" &&
  git clone --quiet --no-hardlinks "$repo" "$target/srv/forkd"
}

# How this host reaches package archives, without anything that could be a secret: name service,
# trusted certificates, apt's transport settings. Registry and proxies go by environment.
lend_network_settings() {
  cp -L /etc/resolv.conf /etc/hosts "$target/etc/"
  if [ -f /etc/ssl/certs/ca-certificates.crt ]; then
    cp -L /etc/ssl/certs/ca-certificates.crt "$target/etc/ssl/certs/"
  fi
  grep -ls '^Acquire::' /etc/apt/apt.conf.d/* 2>/dev/null | while read -r file; do
    cp -n -- "$file" "$target/etc/apt/apt.conf.d/"
  done
  return 0
}

# Prints NAME=VALUE lines for `env -i`.
guest_environment() {
  echo "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
  echo "HOME=/root"
  echo "LC_ALL=C.UTF-8"
  if [ -n "${CI:-}" ]; then echo "CI=$CI"; fi
  for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
    if [ -n "${!name:-}" ]; then echo "$name=${!name}"; fi
  done
  if command -v npm >/dev/null 2>&1; then
    echo "npm_config_registry=$(npm config get registry 2>/dev/null)"
  fi
  for name in NODE_EXTRA_CA_CERTS SSL_CERT_FILE; do
    if [ -f "${!name:-}" ]; then
      cp -L -- "${!name}" "$target/etc/ssl/$name.pem"
      echo "$name=/etc/ssl/$name.pem"
    fi
  done
}

# Runs inside a mount and process namespace of its own, as its process 1. The new root becomes the
# root of the namespace, not a chroot: containers that are made in it need a root that is a mount.
enter() {
  mount --make-rprivate /
  mount --bind "$target" "$target"
  mount -t proc proc "$target/proc"
  mount --rbind /sys "$target/sys"
  mount -t tmpfs -o mode=755 dev "$target/dev"
  mkdir -p "$target/dev/pts" "$target/dev/shm" "$target/dev/net"
  for node in null zero full random urandom tty kvm net/tun loop-control loop{0..7}; do
    [ -c "/dev/$node" ] || [ -b "/dev/$node" ] || continue
    touch "$target/dev/$node"
    mount --bind "/dev/$node" "$target/dev/$node"
  done
  mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$target/dev/pts"
  ln -s pts/ptmx "$target/dev/ptmx"
  ln -s /proc/self/fd "$target/dev/fd"
  mount -t tmpfs -o mode=1777 shm "$target/dev/shm"
  mount -t tmpfs -o mode=755 run "$target/run"
  mapfile -t environment < "$work/environment"
  cd "$target"
  pivot_root . mnt
  umount -l /mnt
  exec env -i "${environment[@]}" "$@"
}

in_root() {
  export target work
  export -f enter
  unshare --mount --pid --fork --kill-child bash -euc 'enter "$@"' enter "$@" </dev/null
}

step() {
  local name=$1 started=$SECONDS
  shift
  printf '\n##### %s\n' "$name"
  if "$@"; then printf '##### %s: ok, %s s\n' "$name" $((SECONDS - started))
  else printf '##### %s: FAILED, %s s\n' "$name" $((SECONDS - started)); exit 1
  fi
}

step "a pristine $suite with a clean clone" make_root
lend_network_settings
guest_environment > "$work/environment"
if [ "$setup_only" = yes ]; then
  step "setup.sh" in_root /srv/forkd/scripts/setup.sh
  step "setup.sh, second run" in_root /srv/forkd/scripts/setup.sh
else
  step "quickstart.sh" in_root /srv/forkd/scripts/quickstart.sh
  step "quickstart.sh, second run" in_root /srv/forkd/scripts/quickstart.sh
fi
if [ "$tests" = yes ]; then step "test.sh" in_root /srv/forkd/scripts/test.sh; fi
printf '\nproved on a pristine %s\n' "$suite"
