import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { type Baked, ensureBaked } from "../helpers/baked.ts";
import { skipWithout } from "../helpers/capability.ts";
import { startDaemon, type TestDaemon } from "../helpers/daemon.ts";
import { eventually } from "../helpers/eventually.ts";

const forksCount = 4;
const ticksMin = 200;
const tag = "held-branch";

/** Writes the generation of its guest down as often as it can, on and on. */
const ticker = `
import os
log = os.open("/dev/shm/ticks", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
while True:
    with open("/run/forkd/generation") as file:
        os.write(log, file.read().encode())
`;

describe("a guest that is busy while it is branched", {
  skip: skipWithout("root", "qemu", "guest-agent"),
}, () => {
  let baked: Baked;
  let daemon: TestDaemon;

  before(async () => {
    baked = await ensureBaked();
    daemon = await startDaemon(baked.dataDir);
  });
  after(async () => {
    await daemon?.client.deleteSnapshot({ params: { tag } }).catch(() => undefined);
    await daemon?.killAll();
  });

  const spawn = (snapshot_tag: string, n: number) =>
    daemon.client.createSandboxes({ body: { snapshot_tag, n } });
  const sh = async (id: string, script: string): Promise<string> => {
    const body = { args: ["sh", "-c", script], timeout_secs: 60, env: {} };
    const { stdout, stderr, exit_code } = await daemon.client.execSandbox({ params: { id }, body });
    assert.equal(exit_code, 0, stderr);
    return stdout;
  };
  const ticksOf = async (id: string, generation: number): Promise<number> => {
    const count = `grep -c -x ${generation} /dev/shm/ticks || true`;
    return Number(await sh(id, count));
  };

  test("runs no instruction of its own in a fork before that has its identity", async () => {
    const [parent = assert.fail()] = await spawn(baked.tag, 1);
    const generation = parent.identity?.generation ?? assert.fail();
    await sh(parent.id, `python3 -c '${ticker}' </dev/null >/dev/null 2>&1 &`);
    const before = await eventually(
      async () => {
        const ticks = await ticksOf(parent.id, generation);
        assert.ok(ticks > ticksMin);
        return ticks;
      },
      { timeoutMs: 60_000 },
    );
    await daemon.client.branchSandbox({
      params: { id: parent.id },
      body: { tag, mode: "diff", wait: true },
    });
    const forks = await spawn(tag, forksCount);
    const old = await Promise.all(forks.map(({ id }) => ticksOf(id, generation)));
    // A tick that a fork made for itself would be under its parent's generation until the identity.
    assert.deepEqual(new Set(old).size, 1, `ticks of the parent in its forks: ${old}`);
    assert.ok((old[0] ?? 0) >= before);
    for (const { id, identity } of forks) {
      assert.equal(identity?.generation, generation + 1);
      await eventually(async () => assert.ok((await ticksOf(id, generation + 1)) > 0), {
        timeoutMs: 60_000,
      });
    }
    const later = await ticksOf(parent.id, generation);
    assert.ok(later > (old[0] ?? 0), "the parent goes on");
  });
});
