"""Runs commands in a system VM for the tests: one JSON object a line on a virtio port, both ways.

Request: {"id", "command", "input", "timeout_secs"}. Answer: {"id", "code", "stdout", "stderr"},
the outputs in base64 and cut at their ends. Says {"hello": BOOT_ID} once it listens.
"""

import base64
import json
import os
import signal
import subprocess
import threading

PORT = "/dev/virtio-ports/dev.forkd.test"
OUTPUT_BYTES_MAX = 1 << 20

port = os.open(PORT, os.O_RDWR)
writing = threading.Lock()


def say(message):
    data = json.dumps(message).encode() + b"\n"
    with writing:
        while data:
            data = data[os.write(port, data) :]


def text(output):
    return base64.b64encode(output[-OUTPUT_BYTES_MAX:]).decode()


def run(request):
    process = subprocess.Popen(
        ["/bin/sh", "-c", request["command"]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        given = request["input"].encode()
        out, err = process.communicate(given, timeout=request["timeout_secs"])
        code = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        out, err, code = b"", b"killed at its deadline", None
    say({"id": request["id"], "code": code, "stdout": text(out), "stderr": text(err)})


with open("/proc/sys/kernel/random/boot_id") as file:
    say({"hello": file.read().strip()})
with os.fdopen(os.dup(port), "rb") as requests:
    for line in requests:
        threading.Thread(target=run, args=(json.loads(line),), daemon=True).start()
