import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { open, rm } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { ForkdError } from "@forkd/api";
import { resolveDataPaths } from "@forkd/host/config/data-paths.ts";
import { type Baked, ensureBaked } from "../helpers/baked.ts";
import { skipWithout } from "../helpers/capability.ts";
import { forkd } from "../helpers/cli.ts";
import { startDaemon, type TestDaemon } from "../helpers/daemon.ts";
import { type DataDir, makeDataDir } from "../helpers/data-dir.ts";
import { spawnOne } from "../helpers/spawn-one.ts";

const depth = 4;
const codeOf = (code: string, message: RegExp) => (error: unknown) =>
  error instanceof ForkdError && error.code === code && message.test(error.message);

describe("chains of branches", { skip: skipWithout("root", "qemu", "guest-agent") }, () => {
  let data: DataDir;
  let daemon: TestDaemon;
  let baked: Baked;
  const tags = Array.from({ length: depth }, (_, i) => `link-${i + 1}`);
  const last = `link-${depth}`;
  const client = () => daemon.client;
  const cli = (...args: string[]) => forkd(args, { dataDir: data.path, daemon });

  before(async () => {
    baked = await ensureBaked();
    // Its cache is its own: what is remembered of layers is part of what is tested.
    data = await makeDataDir("chains", baked, ["kernels", "rootfs", "snapshot"]);
    daemon = await startDaemon(data.path);
    let parent = baked.tag;
    for (const tag of tags) {
      await withChild(parent, async (id) => {
        await execOk(id, ["sh", "-c", `echo ${tag} > /tmp/${tag}`]);
        const body = { tag, mode: "diff" } as const;
        const info = await client().branchSandbox({ params: { id }, body });
        assert.equal(info.status, "ready");
        assert.equal(info.parent_tag, parent);
      });
      parent = tag;
    }
  });
  after(async () => {
    await daemon?.killAll();
    await data?.assertNothingLeft();
    await rm(resolveDataPaths({ FORKD_DATA_DIR: data.path }, 0).hotDir, {
      recursive: true,
      force: true,
    });
    await data?.[Symbol.asyncDispose]();
  });

  async function withChild<T>(tag: string, use: (id: string) => Promise<T>): Promise<T> {
    const { id } = await spawnOne(client(), tag);
    try {
      return await use(id);
    } finally {
      await client().deleteSandbox({ params: { id } });
    }
  }

  async function execOk(id: string, args: string[]): Promise<string> {
    const result = await client().execSandbox({ params: { id }, body: { args } });
    assert.equal(result.exit_code, 0, result.stderr);
    return result.stdout;
  }

  const assertHasAll = (tag: string): Promise<void> =>
    withChild(tag, async (id) => {
      const out = await execOk(id, ["cat", ...tags.map((each) => `/tmp/${each}`)]);
      assert.deepEqual(out.trim().split("\n"), tags);
    });

  test("the deepest has what was written at every depth", () => assertHasAll(last));

  test("each depth has what was written until then, and nothing of later", () =>
    withChild("link-2", async (id) => {
      assert.equal(await execOk(id, ["sh", "-c", "ls /tmp | grep link"]), "link-1\nlink-2\n");
    }));

  test("four children of the deepest share one image", async () => {
    const body = { snapshot_tag: last, n: 4 };
    const children = await client().createSandboxes({ body });
    try {
      const { hotDir } = resolveDataPaths({ FORKD_DATA_DIR: data.path }, 0);
      const images = children.map(({ pid }) => {
        const maps = readFileSync(`/proc/${pid}/maps`, "utf8").split("\n");
        const over = maps.filter((line) => line.includes(hotDir));
        assert.ok(over.length > 0, "the image is not mapped");
        assert.ok(
          over.every((line) => / r\S-p /.test(line)),
          "the image is not private",
        );
        return [...new Set(over.map((line) => line.slice(line.indexOf(hotDir))))];
      });
      assert.equal(new Set(images.flat()).size, 1);
    } finally {
      for (const { id } of children) await client().deleteSandbox({ params: { id } });
    }
  });

  test("a link takes little more than what changed", async () => {
    const info = await client().getSnapshotInfo({ params: { tag: last } });
    assert.equal(info.chain_depth, depth);
    assert.deepEqual(info.ancestors, [baked.tag, ...tags.slice(0, -1)]);
    assert.ok(info.memory_physical_bytes <= 1.2 * info.memory_data_bytes);
    assert.ok(info.memory_data_bytes < info.memory_logical_bytes / 4);
  });

  test("info and tree tell of the chain", async () => {
    const info = await cli("snapshot-info", "link-2");
    assert.equal(info.code, 0, info.stderr);
    assert.match(info.stdout, /^chain depth +2$/m);
    assert.match(info.stdout, /^parent_tag +link-1$/m);
    assert.match(info.stdout, /^dependents +link-3$/m);
    const tree = await cli("tree");
    assert.match(tree.stdout, new RegExp(`^${baked.tag} .*\\n└─ link-1 .*\\n {3}└─ link-2 `, "m"));
    const unknown = await cli("snapshot-info", "nope");
    assert.equal(unknown.code, 1);
    assert.match(unknown.stderr, /'nope' not found/);
  });

  test("a compacted chain is a base with the same memory", async () => {
    const made = await cli("snapshot-compact", "--from", last, "--to", "flat");
    assert.equal(made.code, 0, made.stderr);
    assert.match(made.stdout, /^tag: flat\ndir: .*\/flat\nbranched_from: compact:link-4\n/);
    const info = await client().getSnapshotInfo({ params: { tag: "flat" } });
    assert.equal(info.chain_depth, 0);
    await assertHasAll("flat");
    const again = await cli("snapshot-compact", "--from", last, "--to", "flat");
    assert.equal(again.code, 1);
    assert.match(again.stderr, /exists already/);
  });

  test("a parent is removed only with its children, or by force", async () => {
    const refused = await cli("rmi", "link-3");
    assert.equal(refused.code, 1);
    assert.match(refused.stdout, /link-4.*cascade=true.*force=true/);
    assert.match(refused.stderr, /forkd rmi --cascade link-3/);
    assert.equal((await cli("rmi", "link-3", "--cascade", "--force")).code, 2);
  });

  test("damaged bytes of a parent are refused by every child, and said", async () => {
    const file = join(data.path, "snapshots/link-1/memory.diff");
    const flip = async (): Promise<void> => {
      await using handle = await open(file, "r+");
      const { size } = await handle.stat();
      const block = Buffer.alloc(1024 * 1024);
      for (let at = 0; at < size; at += block.length) {
        const { bytesRead } = await handle.read(block, 0, block.length, at);
        const found = block.subarray(0, bytesRead).findIndex((byte) => byte !== 0);
        if (found === -1) continue;
        await handle.write(Buffer.of((block[found] ?? 0) ^ 1), 0, 1, at + found);
        return;
      }
    };
    await flip();
    const damaged = codeOf("snapshot_corrupt", /link-1\/memory\.diff is damaged: chunk 0x/);
    await assert.rejects(
      withChild(last, async () => undefined),
      damaged,
    );
    const listed = (await client().listSnapshots()).filter(({ tag }) => tag.startsWith("link"));
    assert.ok(listed.every(({ status, bootable }) => status === "failed" && !bootable));
    await flip();
    await assertHasAll(last);
  });

  test("a daemon that starts again finds the chain as it was", async () => {
    await daemon.crash();
    daemon = await startDaemon(data.path);
    await assertHasAll(last);
  });

  test("orphans say what they miss, and cascade removes what is left", async () => {
    assert.equal((await cli("rmi", "link-2", "--force")).code, 0);
    const orphan = (await client().listSnapshots()).find(({ tag }) => tag === "link-3");
    assert.equal(orphan?.status, "failed");
    assert.match(orphan?.warning ?? "", /needs its parent 'link-2', which is missing/);
    assert.equal((await cli("rmi", "link-3", "--cascade")).code, 0);
    assert.equal((await cli("rmi", "link-1", "flat")).code, 0);
    assert.deepEqual(
      (await client().listSnapshots()).map(({ tag }) => tag),
      [baked.tag],
    );
  });
});
