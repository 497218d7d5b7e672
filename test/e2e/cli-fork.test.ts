/** `forkd fork` with real VMs: what it prints, and that nothing outlives it however it ends. */
import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { after, afterEach, before, describe, test } from "node:test";
import { type Baked, ensureBaked } from "../helpers/baked.ts";
import { skipWithout } from "../helpers/capability.ts";
import { endsAfter, forkd, startForkd } from "../helpers/cli.ts";
import { startDaemon, type TestDaemon } from "../helpers/daemon.ts";
import { type DataDir, makeDataDir } from "../helpers/data-dir.ts";
import { eventually } from "../helpers/eventually.ts";
import { vmmProcesses } from "../helpers/vmm-processes.ts";

/** Upstream's Python client sends SIGKILL this long after SIGTERM. */
const clientPatienceMs = 20_000;

const forkLines =
  /^==> all sockets up in (\d+) ms\n==> (\d+) restores fired in parallel in (\d+) ms\n==> total wall-clock: (\d+) ms\n==> (\d+) \/ (\d+) children alive\n$/;

function assertForkLines(stdout: string, alive: number, count: number): void {
  const match = forkLines.exec(stdout);
  assert.ok(match, stdout);
  const [ready, restores, restoring, total, living, all] = match.slice(1).map(Number);
  assert.deepEqual([restores, living, all], [count, alive, count]);
  assert.equal(total, (ready ?? 0) + (restoring ?? 0));
  const totalLine = stdout.split("\n")[2] ?? "";
  assert.equal(totalLine.split(" ")[3], String(total), "scripts take the fourth word");
}

describe("forkd fork", { skip: skipWithout("root", "qemu", "guest-agent") }, () => {
  let baked: Baked;
  let data: DataDir;

  before(async () => {
    baked = await ensureBaked();
    data = await makeDataDir("fork", baked);
  });
  afterEach(() => data?.assertNothingLeft());
  after(() => data?.[Symbol.asyncDispose]());

  const here = () => ({ dataDir: data.path });
  const fork = (n: number, settleSecs: number): string[] => [
    ...["fork", "--tag", baked.tag, "-n", String(n)],
    ...["--settle-secs", String(settleSecs)],
  ];

  test("prints four lines that scripts can read", async () => {
    const end = await forkd(fork(3, 1), here());
    assert.equal(end.code, 0, end.stderr);
    assertForkLines(end.stdout, 3, 3);
    assert.match(end.stderr, /proven identity: p50 [\d.]+ ms/);
  });

  test("a hundred children live, and none is left", async () => {
    const end = await forkd(fork(100, 0), here());
    assert.equal(end.code, 0, end.stderr);
    assertForkLines(end.stdout, 100, 100);
  });

  test("--json is one value with every child in it", async () => {
    const end = await forkd([...fork(2, 0), "--json"], here());
    assert.equal(end.code, 0, end.stderr);
    assert.equal(end.stderr, "");
    const {
      n,
      alive,
      total_ms: total,
      sockets_ms: ready,
      restore_ms: restore,
      children,
    } = JSON.parse(end.stdout);
    assert.deepEqual([n, alive, total, children.length], [2, 2, ready + restore, 2]);
    assert.equal(children[0].identity.crng_reseeded, true);
    assert.equal(children[0].alive, true);
  });

  test("a child that died is not counted, and the exit code tells", async () => {
    const run = startForkd(fork(2, 3), here());
    await run.said(/total wall-clock/);
    process.kill(vmmProcesses(data.path)[0] ?? assert.fail("no VM"), "SIGKILL");
    const end = await run.ended;
    assert.equal(end.code, 1);
    assertForkLines(end.stdout, 1, 2);
    assert.match(end.stderr, /warning: sb-\S+ does not answer/);
  });

  test("SIGTERM ends it as upstream's Python client expects", async () => {
    const run = startForkd(fork(1, 3600), here());
    await run.said(/total wall-clock/);
    assert.equal(vmmProcesses(data.path).length, 1);
    const end = await endsAfter(run, "SIGTERM", clientPatienceMs);
    assert.equal(end.code, 143);
    assert.deepEqual(vmmProcesses(data.path), []);
  });

  test("SIGINT while children are being forked", async () => {
    const run = startForkd(fork(4, 3600), here());
    await eventually(() => assert.notEqual(vmmProcesses(data.path).length, 0), {
      timeoutMs: 20_000,
      everyMs: 5,
    });
    const end = await endsAfter(run, "SIGINT", clientPatienceMs);
    assert.equal(end.code, 130);
    assert.equal(end.stdout.includes("alive"), false);
  });

  test("SIGKILL: its VMs end with it, the next command tidies up", async () => {
    const run = startForkd(fork(2, 3600), here());
    await run.said(/total wall-clock/);
    const end = await endsAfter(run, "SIGKILL", clientPatienceMs);
    assert.equal(end.signal, "SIGKILL");
    await eventually(() => assert.deepEqual(vmmProcesses(data.path), []));
    assert.equal((await readdir(join(data.path, "work"))).length, 2);
    const next = await forkd(["images"], here());
    assert.equal(next.code, 0, next.stderr);
  });

  test("a tag that is not there, and counts that make no sense", async () => {
    const unknown = await forkd(["fork", "--tag", "no-such-tag", "-n", "1"], here());
    assert.equal(unknown.code, 1);
    assert.match(unknown.stderr, /^error: .*no-such-tag.*\nhint: .*forkd images/m);
    const wrong = [
      ["-n", "0", "--tag", baked.tag],
      ["-n", "1001", "--tag", baked.tag],
      ["-n", "1", "--tag", "../x"],
    ];
    for (const words of wrong) {
      const end = await forkd(["fork", ...words], here());
      assert.equal(end.code, 2, end.stderr);
      assert.match(end.stderr, /^error: .+\nhint: .+/m);
    }
  });

  describe("through a daemon", () => {
    let daemon: TestDaemon;
    before(async () => {
      daemon = await startDaemon(data.path);
    });
    after(() => daemon?.killAll());
    afterEach(async () => assert.deepEqual(await daemon.client.listSandboxes(), []));

    test("the same lines, and the daemon's children are gone after it", async () => {
      const end = await forkd(fork(2, 1), { ...here(), daemon });
      assert.equal(end.code, 0, end.stderr);
      assertForkLines(end.stdout, 2, 2);
      assert.match(end.stderr, /by the daemon at http/);
    });

    test("SIGTERM ends the daemon's children too", async () => {
      const run = startForkd(fork(2, 3600), { ...here(), daemon });
      await run.said(/total wall-clock/);
      assert.equal((await daemon.client.listSandboxes()).length, 2);
      const end = await endsAfter(run, "SIGTERM", clientPatienceMs);
      assert.equal(end.code, 143);
    });
  });
});
