#!/bin/sh
# Tests build/forkd-notify; prints TAP.
set -eu
# shellcheck source=native/test/tap.sh
. "$(dirname -- "$0")/tap.sh"
notify=$(CDPATH='' cd -- "$(dirname -- "$0")/../build" && pwd)/forkd-notify
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# received SOCKET prints what a service manager at SOCKET gets: text, then whether from its child.
received() {
  NOTIFY=$notify AT=$1 python3 -c '
import os, socket, struct, subprocess, sys
at = os.environ["AT"]
server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
server.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
server.settimeout(10)
server.bind("\0" + at[1:] if at[0] == "@" else at)
text = b"READY=1\tSTATUS=a b\n" + b"x" * 5000 + b"\nSTOPPING=1\nno end"
subprocess.run([os.environ["NOTIFY"]], input=text, env={"NOTIFY_SOCKET": at}, check=True)
for _ in range(4):
    data, control, _, _ = server.recvmsg(8192, 256)
    pid = struct.unpack("iii", control[0][2])[0]
    whose = "parent" if pid == os.getpid() else "itself"
    print(len(data), repr(data.decode()[:20]), whose)
'
}

expected="18 'READY=1\\nSTATUS=a b' parent
4095 'xxxxxxxxxxxxxxxxxxxx' parent
10 'STOPPING=1' parent
6 'no end' parent"
# Only root may speak for another process.
if [ "$(id -u)" -ne 0 ]; then expected=$(printf '%s' "$expected" | sed 's/parent/itself/'); fi
check "each line is a datagram in the parent's name" "$expected" "$(received "$dir/socket")"
check "an abstract socket is reached too" "$expected" "$(received "@forkd-notify-test-$$")"

# code_of SOCKET prints the exit code.
code_of() { NOTIFY_SOCKET=$1 "$notify" </dev/null 2>/dev/null && echo 0 || echo $?; }

check "without a socket's name it says so" 1 "$(code_of '')"
check "a name that is no path is refused" 1 "$(code_of relative)"
check "the end of its input ends it" 0 "$(code_of "$dir/none")"

echo "1..$tests"
exit "$failed"
