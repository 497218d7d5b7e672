import assert from "node:assert/strict";
import type { Client } from "@forkd/sdk";

const blocks = 256;
const blockBytes = 4096;

/**
 * In the guest's warm interpreter. The writer writes block after block to the disk, past the page
 * cache, each with its number, and says in memory which was the last. In a fork the blocks on the
 * disk must be those that the memory says, or one more that was under way.
 */
const program = `
import mmap, os, struct, threading
class forkd_disk:
    last = 0
    fd = os.open("/var/forkd-blocks", os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o600)
    block = mmap.mmap(-1, ${blockBytes})
def forkd_disk_generation():
    with open("/run/forkd/generation") as f:
        return f.read()
def forkd_disk_put(number):
    d = forkd_disk
    d.block[:8] = struct.pack("<q", number)
    os.pwritev(d.fd, [d.block], number % ${blocks} * ${blockBytes})
    d.last = number
def forkd_disk_write(home):
    while forkd_disk_generation() == home:
        forkd_disk_put(forkd_disk.last + 1)
def forkd_disk_look():
    found = []
    page = mmap.mmap(-1, ${blockBytes})
    for at in range(${blocks}):
        os.preadv(forkd_disk.fd, [page], at * ${blockBytes})
        found.append(struct.unpack("<q", page[:8])[0])
    last = max(found)
    wrong = [n for at, n in enumerate(found) if n != last - (last - at) % ${blocks}]
    return {"memory": forkd_disk.last, "disk": last, "wrong": wrong}
for number in range(${blocks}):
    forkd_disk_put(number)
threading.Thread(target=forkd_disk_write, args=(forkd_disk_generation(),), daemon=True).start()
`;

export async function startDiskPattern(client: Client, id: string): Promise<void> {
  await evaluate(client, id, program);
}

/** Fails unless the disk and the memory of a fork are of one instant. */
export async function assertOneDiskInstant(client: Client, id: string): Promise<void> {
  const json = await evaluate(client, id, "forkd_disk_look()");
  const look: { memory: number; disk: number; wrong: number[] } = JSON.parse(json ?? "null");
  assert.deepEqual(look.wrong, [], "blocks of another time");
  const ahead = look.disk - look.memory;
  assert.ok(
    ahead === 0 || ahead === 1,
    `the disk is at ${look.disk}, the memory at ${look.memory}`,
  );
}

async function evaluate(client: Client, id: string, code: string): Promise<string | null> {
  const answer = await client.evalSandbox({ params: { id }, body: { code, timeout_secs: 60 } });
  assert.equal(answer.error, null, answer.traceback ?? "");
  return answer.result_json;
}
