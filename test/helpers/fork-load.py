"""Asks a forkd daemon on 127.0.0.1:8889 for things, inside a system VM, and prints JSON.

fork-load.py call METHOD PATH [BODY]
fork-load.py warm SANDBOX...
fork-load.py load|load-to-end HOG COMMAND SIBLING...

`load` runs COMMAND in the sandbox HOG and times execs in its siblings, one at a time, in turns with
the hog's VMM frozen and running: whatever else the machine does meets both alike. Then it ends the
command; `load-to-end` awaits its end.
"""

import glob
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request

DAEMON = "http://127.0.0.1:8889"
ROUNDS = 8
HOG_SECS = 600
# The first exec of a guest that is emulated twice translates all that it runs.
EXEC_SECS = 200
ANSWER_SECS = 240


def call(method, path, body=None):
    with open("/etc/forkd/token") as file:
        token = file.read().strip()
    headers = {"authorization": "Bearer " + token, "content-type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(DAEMON + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_SECS) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def shell(sandbox, command, secs):
    body = {"args": ["/bin/sh", "-c", command], "timeout_secs": secs}
    return "POST", f"/v1/sandboxes/{sandbox}/exec", body


def times(siblings):
    taken = []
    for sibling in siblings:
        start = time.monotonic()
        status, answer = call(*shell(sibling, ":", EXEC_SECS))
        taken.append(time.monotonic() - start)
        if status != 200 or json.loads(answer)["exit_code"] != 0:
            raise SystemExit(f"an exec in {sibling} failed: {answer}")
    return taken


def freeze(group, frozen):
    with open(group + "/cgroup.freeze", "w") as file:
        file.write("1" if frozen else "0")


def load(hog, command, *siblings):
    [group] = glob.glob(f"/sys/fs/cgroup/forkd/*/{hog}")
    method, path, body = shell(hog, command, HOG_SECS)
    request = [sys.executable, __file__, "call", method, path, json.dumps(body)]
    times(siblings)
    without, beside = [], []
    # When the process goes, so does its connection, and with that the command.
    hogging = subprocess.Popen(request, stdout=subprocess.DEVNULL)
    time.sleep(2)
    for _ in range(ROUNDS):
        beside += times(siblings)
        if hogging.poll() is not None:
            break
        freeze(group, True)
        without += times(siblings)
        freeze(group, False)
    return without, beside, hogging


def measure(until_it_ends, *words):
    without, beside, hogging = load(*words)
    lasted = hogging.poll() is None
    if until_it_ends:
        hogging.wait(ANSWER_SECS)
    hogging.kill()
    hogging.wait()
    return {"without": without, "beside": beside, "lasted": lasted}


if __name__ == "__main__":
    _, verb, *words = sys.argv
    if verb == "call":
        status, text = call(*words[:2], *map(json.loads, words[2:]))
        print(json.dumps({"status": status, "body": json.loads(text) if text else None}))
    elif verb == "warm":
        print(json.dumps(times(words)))
    else:
        print(json.dumps(measure(verb == "load-to-end", *words)))
