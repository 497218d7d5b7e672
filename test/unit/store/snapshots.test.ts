import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { parseSnapshotTag } from "@forkd/api";
import { type DataPaths, resolveDataPaths } from "@forkd/host/config/data-paths.ts";
import { identifyProcess } from "@forkd/host/linux/proc.ts";
import { layout } from "@forkd/host/store/layout.ts";
import { SnapshotStore } from "@forkd/host/store/snapshots.ts";
import { sampleManifest } from "../../helpers/sample-manifest.ts";

const self = identifyProcess(process.pid) ?? assert.fail();
const gone = { ...self, startTicks: self.startTicks + 1 };
const tag = parseSnapshotTag("t");
let dir = "";
let paths: DataPaths;
let store: SnapshotStore;

before(async () => {
  dir = await mkdtemp(join(tmpdir(), "forkd-store-"));
  paths = resolveDataPaths({ FORKD_DATA_DIR: dir }, 0);
  store = new SnapshotStore(paths, self);
  await mkdir(paths.rootfsDir);
  await writeFile(layout.rootImage(paths, "c".repeat(64)), "root");
});
after(() => rm(dir, { recursive: true, force: true }));

async function publish(owner = self): Promise<void> {
  const staging = await new SnapshotStore(paths, owner).stage(tag);
  await writeFile(staging.vmstateFile, "1234");
  await writeFile(staging.memoryFile, Buffer.alloc(4096));
  try {
    await staging.publish(sampleManifest("t"), { replace: false });
  } finally {
    await staging.discard();
  }
}

test("an empty store lists nothing and finds nothing", async () => {
  assert.deepEqual(await store.list(), []);
  await assert.rejects(store.open(tag), { code: "snapshot_not_found", message: /not found$/ });
  await assert.rejects(store.remove(tag), { code: "snapshot_not_found" });
});

test("a snapshot being staged is not listed, a published one is, once", async () => {
  const staging = await store.stage(tag);
  assert.deepEqual(await store.list(), []);
  await staging.discard();
  await publish();
  const infos = await store.list();
  assert.deepEqual(
    infos.map(({ tag, status, bootable }) => ({ tag, status, bootable })),
    [{ tag: "t", status: "ready", bootable: true }],
  );
  assert.deepEqual(await readdir(paths.snapshotsDir), ["t"]);
});

test("a tag that exists is not replaced, and the loser leaves nothing", async () => {
  await assert.rejects(publish(), { code: "snapshot_exists" });
  assert.deepEqual(await readdir(paths.snapshotsDir), ["t"]);
  assert.equal((await store.open(tag)).manifest.tag, "t");
});

test("a truncated file is named, in open and in the list", async () => {
  const { memoryFile } = await store.open(tag);
  await truncate(memoryFile, 100);
  const message = `${memoryFile} has 100 bytes, the manifest says 4096`;
  await assert.rejects(store.open(tag), { code: "snapshot_incomplete", message });
  const [info] = await store.list();
  assert.equal(info?.status, "failed");
  assert.equal(info?.bootable, false);
  assert.equal(info?.warning, message);
});

test("a removed snapshot is gone without a trace", async () => {
  await store.remove(tag);
  assert.deepEqual(await readdir(paths.snapshotsDir), []);
});

test("a sweep removes what dead processes were writing, and nothing else", async () => {
  await new SnapshotStore(paths, gone).stage(tag);
  const ours = await store.stage(tag);
  await mkdir(join(paths.snapshotsDir, ".other"));
  await store.sweep();
  const left = await readdir(paths.snapshotsDir);
  assert.deepEqual(
    left.map((name) => join(paths.snapshotsDir, name)).sort(),
    [join(paths.snapshotsDir, ".other"), ours.dir].sort(),
  );
});
