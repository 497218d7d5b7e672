# Shared by the shell scripts of this directory; sourced with $root set to the repository.
set -eu

# What a host needs to run forkd, as PACKAGE[:COMMAND].
host_packages="qemu-system-x86:qemu-system-x86_64 skopeo:skopeo umoci:umoci mmdebstrap:mmdebstrap
  e2fsprogs:mkfs.ext4 zstd:zstd xz-utils:xz lz4:lz4 iproute2:ip nftables:nft crun:crun
  ca-certificates debian-archive-keyring util-linux:unshare tar:tar"

say() { printf '==> %s\n' "$*" >&2; }

die() {
  printf 'error: %s\n' "$1" >&2
  if [ $# -gt 1 ]; then printf 'hint: %s\n' "$2" >&2; fi
  exit 1
}

# Runs a command as root: as we are, or through sudo.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"
  elif command -v sudo >/dev/null 2>&1; then sudo "$@"
  else die "this needs root: $*" "run it as root, or install sudo"
  fi
}

# missing_of PACKAGE[:COMMAND]... prints the packages that are absent. One with a command counts as
# present when the command is there, whoever installed it.
missing_of() {
  for entry in "$@"; do
    package=${entry%%:*}
    command=${entry#*:}
    if [ "$command" != "$entry" ] && command -v "$command" >/dev/null 2>&1; then continue; fi
    case $(dpkg-query -W -f='${db:Status-Abbrev}' "$package" 2>/dev/null || true) in
      ii*) ;;
      *) printf '%s\n' "$package" ;;
    esac
  done
}

apt_get() {
  as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@" </dev/null >/dev/null
}

# apt_install PACKAGE... installs all or ends the script.
apt_install() {
  [ $# -gt 0 ] || return 0
  command -v apt-get >/dev/null 2>&1 ||
    die "these are missing and there is no apt-get: $*" "install them and run this again"
  say "installing by apt: $*"
  apt_get update || die "apt-get update failed" "check the network and /etc/apt/sources.list*"
  apt_get install -y --no-install-recommends "$@" ||
    die "apt-get could not install: $*" "on Ubuntu, enable the universe component"
}

# node_major prints the major version of the host's Node, or 0.
node_major() {
  node -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0
}

# netns_locked VERB ARG... runs `forkd netns`, one at a time on this host.
netns_locked() {
  if [ "$(id -u)" -ne 0 ]; then exec "$root/bin/forkd" netns "$@"; fi
  exec flock --timeout 600 /run/forkd-netns.lock "$root/bin/forkd" netns "$@"
}
