/** A snapshot on another host: packed here, gone here, unpacked there, forked there. */
import assert from "node:assert/strict";
import { rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { resolveDataPaths } from "@forkd/host/config/data-paths.ts";
import { type Baked, ensureBaked } from "../helpers/baked.ts";
import { skipWithout } from "../helpers/capability.ts";
import { type CliEnd, forkd } from "../helpers/cli.ts";
import { startDaemon, type TestDaemon } from "../helpers/daemon.ts";
import { makeDataDir } from "../helpers/data-dir.ts";
import { spawnOne } from "../helpers/spawn-one.ts";
import { makeTmpDir, type TmpDir } from "../helpers/tmp.ts";

const children = 10;
const links = ["link-1", "link-2", "link-3"] as const;
const head = links[2];
const packTimeoutMs = 180_000;

describe("packs", { skip: skipWithout("root", "qemu", "guest-agent") }, () => {
  let baked: Baked;
  let files: TmpDir;
  /** The data directory of the other host. */
  let there: TmpDir;
  let daemon: TestDaemon;
  const basePack = () => join(files.path, "base.zst");
  const headPack = () => join(files.path, "head.zst");

  before(async () => {
    baked = await ensureBaked();
    files = await makeTmpDir("packs");
    there = await makeTmpDir("packs-there");
    await packHere();
    daemon = await startDaemon(there.path);
  });
  after(async () => {
    await daemon?.killAll();
    const { hotDir } = resolveDataPaths({ FORKD_DATA_DIR: there.path }, 0);
    await rm(hotDir, { recursive: true, force: true });
    for (const dir of [files, there]) await dir?.[Symbol.asyncDispose]();
  });

  const run = async (dataDir: string, ...args: string[]): Promise<CliEnd> => {
    const end = await forkd(args, { dataDir, timeoutMs: packTimeoutMs });
    assert.equal(end.code, 0, end.stderr);
    return end;
  };

  /** Makes a chain, packs its base and its head, and leaves nothing but the packs. */
  async function packHere(): Promise<void> {
    await using here = await makeDataDir("packs-here", baked, ["kernels", "rootfs", "snapshot"]);
    const origin = await startDaemon(here.path);
    try {
      let parent = baked.tag;
      for (const tag of links) {
        const { id } = await spawnOne(origin.client, parent);
        const body = { code: `trail = globals().get('trail', []) + ['${tag}']`, timeout_secs: 30 };
        assert.equal((await origin.client.evalSandbox({ params: { id }, body })).exit_code, 0);
        await origin.client.branchSandbox({ params: { id }, body: { tag, mode: "diff" } });
        await origin.client.deleteSandbox({ params: { id } });
        parent = tag;
      }
    } finally {
      await origin.killAll();
    }
    const base = await run(here.path, "pack", "--tag", baked.tag, "--out", basePack());
    assert.match(base.stderr, /packing: 100 % of \d+ MiB/);
    assert.match(base.stderr, /✓ packed '.*': [\d.]+ MiB in [\d.]+ MiB, [\d.]+x, [\d.]+ s/);
    await run(here.path, "pack", "--tag", head, "--thin", "--out", headPack());
    const { hotDir } = resolveDataPaths({ FORKD_DATA_DIR: here.path }, 0);
    await rm(hotDir, { recursive: true, force: true });
  }

  /** Forks ten and has each say where it comes from, and something that only it knows. */
  async function assertForks(tag: string, trail: readonly string[]): Promise<void> {
    const { client } = daemon;
    const forked = await client.createSandboxes({ body: { snapshot_tag: tag, n: children } });
    const code =
      "__import__('os').urandom(8).hex(), globals().get('trail', []), len(numpy.zeros(3))";
    const answers = await Promise.all(
      forked.map(({ id }) =>
        client.evalSandbox({ params: { id }, body: { code, timeout_secs: 30 } }),
      ),
    );
    for (const { id } of forked) await client.deleteSandbox({ params: { id } });
    const results = answers.map(({ result }) => String(result));
    assert.equal(new Set(results).size, children, "children are not all different");
    for (const { exit_code, result_json } of answers) {
      assert.equal(exit_code, 0);
      const [secret, itsTrail, zeros] = JSON.parse(result_json ?? "null");
      assert.equal(secret.length, 16);
      assert.deepEqual([itsTrail, zeros], [trail, 3]);
    }
  }

  test("the base forks on a host that had nothing", async () => {
    const end = await run(there.path, "unpack", basePack(), "--json");
    const report = JSON.parse(end.stdout);
    assert.deepEqual([report.tag, report.warnings], [baked.tag, []]);
    const memory = await stat(join(there.path, "snapshots", baked.tag, "memory.bin"));
    assert.ok(memory.blocks * 512 < memory.size / 2, "the memory is not sparse any more");
    await assertForks(baked.tag, []);
  });

  test("the chain forks with all that its links did", async () => {
    const end = await run(there.path, "unpack", headPack(), "--tag", "moved");
    assert.equal(end.stdout, "moved\n");
    assert.match(end.stderr, new RegExp(`'${baked.tag}' is here already`));
    const info = await daemon.client.getSnapshotInfo({ params: { tag: "moved" } });
    assert.deepEqual(info.ancestors, [baked.tag, "link-1", "link-2"]);
    await assertForks("moved", links);
  });
});
