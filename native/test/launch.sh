#!/bin/sh
# Tests build/forkd-launch; prints TAP.
set -eu
launch=$(CDPATH='' cd -- "$(dirname -- "$0")/../build" && pwd)/forkd-launch
# shellcheck source=native/test/tap.sh
. "$(dirname -- "$0")/tap.sh"

# code_of ARGV... prints the exit code.
code_of() {
  set +e
  "$@" >/dev/null 2>&1 </dev/null
  echo $?
  set -e
}

check "the program's own exit code comes through" 7 "$(code_of "$launch" -- sh -c 'exit 7')"
check "arguments come through unchanged" "a b|c" "$("$launch" -- printf '%s|%s' 'a b' c)"
check "an absent program is 127" 127 "$(code_of "$launch" -- /nonexistent/program)"
check "a file that is no program is 126" 126 "$(code_of "$launch" -- /etc/passwd)"
check "no program is 125" 125 "$(code_of "$launch" --)"
check "no separator is 125" 125 "$(code_of "$launch" --no-thp)"
check "an unknown option is 125" 125 "$(code_of "$launch" --nonsense -- true)"
check "an option without its value is 125" 125 "$(code_of "$launch" --keep-fds)"
check "a number with a tail is 125" 125 "$(code_of "$launch" --oom-score-adj 5x -- true)"
check "a descriptor that is none of its own is 125" 125 "$(code_of "$launch" --keep-fds 2 -- true)"
check "a parent that is gone is 125" 125 "$(code_of "$launch" --die-with-parent 4194304 -- true)"
check "the launcher becomes the program: same pid" same \
  "$("$launch" -- sh -c '[ "$(cat /proc/$$/comm)" = sh ] && echo same')"
is_5_open='[ -e /proc/$$/fd/5 ] && echo open || echo closed'
check "descriptors from N on are closed" closed \
  "$("$launch" --keep-fds 5 -- sh -c "$is_5_open" 5</dev/null)"
check "descriptors below N stay" open \
  "$("$launch" --keep-fds 6 -- sh -c "$is_5_open" 5</dev/null)"
check "the out-of-memory score is set" 300 \
  "$("$launch" --oom-score-adj 300 -- cat /proc/self/oom_score_adj)"
if grep -q '^THP_enabled:' /proc/self/status; then
  check "huge pages are off" 0 \
    "$("$launch" --no-thp -- awk '/^THP_enabled:/ { print $2 }' /proc/self/status)"
else
  tests=$((tests + 1))
  echo "ok $tests - huge pages are off # SKIP this kernel does not show THP_enabled"
fi

# A file stands in for cgroup.procs: what counts is what is written, and before the program runs.
procs=$(mktemp)
check "a group is joined before the program runs" 0 \
  "$("$launch" --cgroup "$procs" -- cat "$procs")"
rm -f "$procs"
check "a group that cannot be joined is 125" 125 \
  "$(code_of "$launch" --cgroup /nonexistent/cgroup.procs -- true)"

# Mounts need root; what they must not do is be seen by anybody else.
if [ "$(id -u)" = 0 ]; then
  dir=$(mktemp -d)
  echo shown >"$dir/file"
  before=$(stat -c %z "$dir/file")
  check "a file is shown under another name" shown \
    "$("$launch" --bind "$dir/file" "$dir/name" -- cat "$dir/name")"
  check "nobody else sees it there, and nothing is left of it" "" "$(cat "$dir/name")"
  check "the file's ctime is as it was" "$before" "$(stat -c %z "$dir/file")"
  check "it cannot be written there" denied \
    "$("$launch" --bind "$dir/file" "$dir/other" -- sh -c 'echo x >"$0" || echo denied' \
      "$dir/other" 2>/dev/null)"
  check "a name that exists is 125" 125 \
    "$(code_of "$launch" --bind "$dir/file" "$dir/name" -- true)"
  rm -rf "$dir"

  # A process keeps the namespace; it is there when the pipe says so.
  ready=$(mktemp -u)
  mkfifo "$ready"
  unshare --net sh -c 'echo >"$0"; exec sleep 60' "$ready" &
  keeper=$!
  read -r _ <"$ready"
  rm -f "$ready"
  check "the program runs in the network namespace" "$(readlink "/proc/$keeper/ns/net")" \
    "$("$launch" --netns "/proc/$keeper/ns/net" -- readlink /proc/self/ns/net)"
  kill "$keeper"
  check "a file that is no network namespace is 125" 125 \
    "$(code_of "$launch" --netns /proc/self/ns/mnt -- true)"
  check "a network of its own has nothing but itself" lo: \
    "$("$launch" --own-netns -- awk 'NR > 2 { print $1 }' /proc/self/net/dev)"
  if [ -c /dev/net/tun ]; then
    show="ip -details link show dev forkd-t0"
    kept="tap pi off vnet_hdr on persist on user"
    check "a tap is made in it and given to a user" "$kept 4321" \
      "$("$launch" --own-netns --tap forkd-t0 4321 -- $show | grep -o 'tap pi.*user [0-9]*')"
    check "a tap that is there is given to the next user" "$kept 8765" \
      "$("$launch" --own-netns --tap forkd-t0 1 -- "$launch" --tap forkd-t0 8765 -- $show |
        grep -o 'tap pi.*user [0-9]*')"
    check "a name that is no device's is 125" 125 \
      "$(code_of "$launch" --own-netns --tap a-name-of-sixteen 1 -- true)"
  else
    tests=$((tests + 1))
    echo "ok $tests - taps are given to users # SKIP no /dev/net/tun"
  fi
else
  tests=$((tests + 1))
  echo "ok $tests - mounts and network namespaces # SKIP needs root"
fi

# The parent starts a sleeper and is killed; the sleeper must go too.
file=$(mktemp)
sh -c '"$0" --die-with-parent $$ -- sleep 60 & echo $! > "$1"; wait' "$launch" "$file" &
parent=$!
tries=100
while [ ! -s "$file" ] || [ "$(cat "/proc/$(cat "$file")/comm" 2>/dev/null)" != sleep ]; do
  tries=$((tries - 1))
  [ $tries -gt 0 ] || { echo "Bail out! the sleeper did not start"; exit 1; }
  sleep 0.05
done
sleeper=$(cat "$file")
rm -f "$file"
kill -9 "$parent"
wait "$parent" 2>/dev/null || true
tries=100
while [ -d "/proc/$sleeper" ] && [ "$(cut -d' ' -f3 "/proc/$sleeper/stat" 2>/dev/null)" != Z ] &&
  [ $tries -gt 0 ]; do
  tries=$((tries - 1))
  sleep 0.05
done
if [ $tries -gt 0 ]; then check "the program dies with its parent" gone gone
else
  kill -9 "$sleeper"
  check "the program dies with its parent" gone alive
fi

echo "1..$tests"
exit $failed
