import assert from "node:assert/strict";
import type { Client } from "@forkd/sdk";

/** Pages of the pattern, and how many the writer changes at a time. */
const pages = 4096;
const step = 64;

/**
 * In the guest's warm interpreter. The writer goes over all pages again and again, writing the
 * number of the round into each, so that at any instant the pages are rounds in falling order, the
 * last at most one behind the first. It stops when it finds itself in a fork, so that what a fork
 * began with is still there to be looked at. The echo is a TCP connection between two threads.
 */
const program = `
import os, socket, threading, time, numpy
class forkd_pattern:
    round = 0
    echoes = 0
    broken = None
    lock = threading.Lock()
    page = numpy.zeros((${pages}, 512), dtype=numpy.int64)
def forkd_generation():
    with open("/run/forkd/generation") as f:
        return f.read()
def forkd_write(home):
    p = forkd_pattern
    while True:
        number = p.round + 1
        for at in range(0, ${pages}, ${step}):
            if forkd_generation() != home:
                return
            with p.lock:
                p.page[at:at + ${step}] = number
            time.sleep(0.001)
        p.round = number
def forkd_serve(listener):
    peer, _ = listener.accept()
    while True:
        peer.sendall(peer.recv(64))
def forkd_echo():
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=forkd_serve, args=(listener,), daemon=True).start()
    with socket.create_connection(listener.getsockname(), timeout=30) as mine:
        try:
            while True:
                text = str(forkd_pattern.echoes).encode()
                mine.sendall(text)
                if mine.recv(64) != text:
                    raise ValueError("another text came back")
                forkd_pattern.echoes += 1
                time.sleep(0.005)
        except Exception as error:
            forkd_pattern.broken = repr(error)
def forkd_look():
    with forkd_pattern.lock:
        p = forkd_pattern.page.copy()
    first = p[:, 0]
    return {"torn_pages": int((p != first[:, None]).any(axis=1).sum()),
            "rises": int((numpy.diff(first) > 0).sum()),
            "first": int(first[0]), "last": int(first[-1]), "round": forkd_pattern.round,
            "echoes": forkd_pattern.echoes, "broken": forkd_pattern.broken}
home = forkd_generation()
threading.Thread(target=forkd_write, args=(home,), daemon=True).start()
threading.Thread(target=forkd_echo, daemon=True).start()
`;

/** What a guest with the pattern looks like at one instant. */
export interface PatternLook {
  readonly torn_pages: number;
  readonly rises: number;
  readonly first: number;
  readonly last: number;
  readonly round: number;
  readonly echoes: number;
  readonly broken: string | null;
}

export async function startPattern(client: Client, id: string): Promise<void> {
  await evaluate(client, id, program);
}

export async function lookAtPattern(client: Client, id: string): Promise<PatternLook> {
  const { result_json: json } = await evaluate(client, id, "forkd_look()");
  return JSON.parse(json ?? "null");
}

/** Fails unless all pages are of one instant. */
export function assertOneInstant(look: PatternLook, what: string): void {
  assert.equal(look.torn_pages, 0, `${what}: pages written in part`);
  assert.equal(look.rises, 0, `${what}: a later page is newer than an earlier one`);
  assert.ok(look.first - look.last <= 1, `${what}: rounds ${look.first} and ${look.last}`);
  assert.ok(look.first - look.round <= 1, `${what}: round ${look.round}, page ${look.first}`);
}

async function evaluate(client: Client, id: string, code: string) {
  const answer = await client.evalSandbox({ params: { id }, body: { code, timeout_secs: 60 } });
  assert.equal(answer.error, null, answer.traceback ?? "");
  return answer;
}
