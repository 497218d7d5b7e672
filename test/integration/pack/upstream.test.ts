import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { unpackSnapshot } from "@forkd/host/pack/unpack.ts";
import { listRootImages } from "@forkd/host/store/rootfs.ts";
import { repoRoot } from "../../helpers/baked.ts";
import { missing } from "../../helpers/capabilities.ts";
import { makePackSite, tagOf, unpackOrder } from "../../helpers/packs.ts";
import { makeTmpDir, type TmpDir } from "../../helpers/tmp.ts";
import { runChild } from "../../runner/child.ts";

const skip = missing({ programs: ["zstd", "python3"] });

describe("packs of upstream's", { skip }, () => {
  let dir: TmpDir;
  const from = (name: string) => ({ from: { file: join(dir.path, name) } });

  before(async () => {
    dir = await makeTmpDir("upstream");
    const script = join(repoRoot, "test/fixtures/upstream-pack.py");
    const end = await runChild(["python3", script, dir.path], {
      cwd: dir.path,
      env: process.env,
      deadlineMs: 60_000,
      onStdoutLine: () => undefined,
      onStderrLine: (line) => assert.fail(line),
    });
    assert.equal(end.code, 0);
  });
  after(() => dir?.[Symbol.asyncDispose]());

  test("version 1 is taken with its root image, and listed as what it is", async () => {
    await using site = await makePackSite();
    await assert.rejects(unpackSnapshot(site.host, unpackOrder(from("v1.zst"))), {
      code: "invalid_tag",
      hint: /--tag/,
    });
    const order = unpackOrder({ ...from("v1.zst"), tag: tagOf("single") });
    const report = await unpackSnapshot(site.host, order);
    assert.equal(report.tag, "single");
    assert.equal(report.warnings.length, 1);
    const [info] = await site.store.list();
    assert.deepEqual([info?.tag, info?.bootable], ["single", false]);
    assert.match(info?.warning ?? "", /is upstream's: its guest has no agent/);
    await assert.rejects(site.store.open(tagOf("single")), { code: "snapshot_incompatible" });
    const snapshot = join(site.paths.snapshotsDir, "single");
    const [image] = await listRootImages(site.paths);
    assert.deepEqual(JSON.parse(await readFile(join(snapshot, "snapshot.json"), "utf8")), {
      vmstate: join(snapshot, "vmstate"),
      memory: join(snapshot, "memory.bin"),
      volumes: [],
      rootfs: image?.path,
    });
    assert.equal(image?.ref, "upstream:owner/single");
    const memory = await readFile(join(snapshot, "memory.bin"));
    assert.deepEqual([memory.length, memory[8191], memory[8192]], [2 * 1024 * 1024, 0, 1]);
    const { blocks, size } = await stat(join(snapshot, "memory.bin"));
    assert.ok(blocks * 512 < size / 10, "its memory was not made sparse");
    await site.store.remove(tagOf("single"));
    assert.deepEqual(await site.store.list(), []);
  });

  test("version 2 is taken as a chain, with the paths of this host", async () => {
    await using site = await makePackSite();
    const report = await unpackSnapshot(site.host, unpackOrder(from("v2.zst")));
    assert.deepEqual(
      report.snapshots.map(({ tag, bootable }) => [tag, bootable]),
      [
        ["root", false],
        ["tip", false],
      ],
    );
    const path = join(site.paths.snapshotsDir, "tip");
    const record = JSON.parse(await readFile(join(path, "snapshot.json"), "utf8"));
    assert.deepEqual([record.parent_tag, record.memory], ["root", join(path, "memory.bin")]);
    assert.match(record.parent_content_hash, /^[0-9a-f]{64}$/);
    await assert.rejects(unpackSnapshot(site.host, unpackOrder(from("v2.zst"))), {
      code: "snapshot_exists",
    });
  });

  test("no path of a manifest is written, and another image beside it is refused", async () => {
    await using site = await makePackSite();
    await assert.rejects(unpackSnapshot(site.host, unpackOrder(from("evil.zst"))), {
      code: "pack_invalid",
      message: /is not the root image/,
    });
    assert.ok(!existsSync(join(dir.path, "escape")));
    assert.deepEqual(await readdir(site.paths.snapshotsDir), []);
    assert.deepEqual(await listRootImages(site.paths), []);
  });
});
