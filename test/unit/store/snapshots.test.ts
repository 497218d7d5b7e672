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
import { publishSample, sampleFacts } from "../../helpers/sample-manifest.ts";

const self = identifyProcess(process.pid) ?? assert.fail();
const gone = { ...self, startTicks: self.startTicks + 1 };
const tag = parseSnapshotTag("t");
const mib = 1024 * 1024;
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

async function publish(writer = store): Promise<void> {
  const reservation = await writer.reserve(tag, { replace: false });
  try {
    await publishSample(reservation);
  } finally {
    await reservation.release();
  }
}

test("an empty store lists nothing and finds nothing", async () => {
  assert.deepEqual(await store.list(), []);
  await assert.rejects(store.open(tag), { code: "snapshot_not_found", message: /not found$/ });
  await assert.rejects(store.remove(tag), { code: "snapshot_not_found" });
});

test("a tag that is being written is listed once, as writing, and cannot be used", async () => {
  const reservation = await store.reserve(tag, { replace: false });
  reservation.note({ branched_from: "sb-1", pause_ms: 3 });
  await reservation.stageBase();
  const [info, ...others] = await store.list();
  assert.deepEqual(others, []);
  assert.equal(info?.status, "writing");
  assert.equal(info?.bootable, false);
  assert.equal(info?.pause_ms, 3);
  await assert.rejects(store.open(tag), { code: "snapshot_not_ready" });
  await assert.rejects(store.info(tag), { code: "snapshot_not_ready" });
  await assert.rejects(store.remove(tag, "orphan"), { code: "snapshot_not_ready" });
  await assert.rejects(store.reserve(tag, { replace: true }), { code: "snapshot_exists" });
  await reservation.release();
  assert.deepEqual(await store.list(), []);
  assert.deepEqual(await readdir(paths.snapshotsDir), []);
});

test("one that failed where nobody waited is listed with its reason until removed", async () => {
  const reservation = await store.reserve(tag, { replace: false });
  await reservation.stageBase();
  await reservation.fail(Object.assign(new Error("no space"), { code: "ENOSPC" }));
  assert.deepEqual(await readdir(paths.snapshotsDir), []);
  const [info] = await store.list();
  assert.equal(info?.status, "failed");
  assert.equal(info?.warning, "no space");
  await assert.rejects(store.open(tag), { code: "snapshot_not_ready", message: /no space/ });
  await assert.rejects(store.reserve(tag, { replace: false }), { code: "snapshot_exists" });
  await store.remove(tag);
  assert.deepEqual(await store.list(), []);
});

test("a published snapshot is listed once and can be opened", async () => {
  await publish();
  const infos = await store.list();
  assert.deepEqual(
    infos.map(({ tag, status, bootable, chain_depth }) => ({ tag, status, bootable, chain_depth })),
    [{ tag: "t", status: "ready", bootable: true, chain_depth: 0 }],
  );
  assert.deepEqual(await readdir(paths.snapshotsDir), ["t"]);
  const { memory } = await store.open(tag);
  assert.equal(memory.overlay, null);
});

test("a tag that exists is not taken again, and a slower writer leaves nothing", async () => {
  await assert.rejects(publish(), { code: "snapshot_exists" });
  // Another process has its own view of what is being written: the rename decides.
  const other = new SnapshotStore(paths, self);
  await store.remove(tag);
  const slow = await other.reserve(tag, { replace: false });
  const staging = await slow.stageBase();
  await writeFile(staging.vmstateFile, "1234");
  await writeFile(staging.memoryFile, Buffer.alloc(mib));
  await publish();
  await assert.rejects(staging.publish(sampleFacts(1)), { code: "snapshot_exists" });
  await slow.release();
  assert.deepEqual(await readdir(paths.snapshotsDir), ["t"]);
});

test("a snapshot that is being replaced can be used, but not removed", async () => {
  const reservation = await store.reserve(tag, { replace: true });
  await store.open(tag);
  await assert.rejects(store.remove(tag), { code: "snapshot_not_ready" });
  assert.deepEqual(
    (await store.list()).map(({ status }) => status),
    ["ready"],
  );
  await reservation.release();
});

test("a truncated file is named, in open and in the list", async () => {
  const { memory } = await store.open(tag);
  await truncate(memory.base, 100);
  const message = `${memory.base} has 100 bytes, the manifest says ${mib}`;
  await assert.rejects(store.open(tag), { code: "snapshot_incomplete", message });
  const [info] = await store.list();
  assert.equal(info?.status, "failed");
  assert.equal(info?.bootable, false);
  assert.equal(info?.warning, message);
});

test("a removed snapshot is gone without a trace", async () => {
  await store.remove(tag);
  assert.deepEqual(await readdir(paths.snapshotsDir), []);
  assert.deepEqual(await readdir(layout.verifiedDir(paths)), []);
});

test("a sweep removes what dead processes were writing, and nothing else", async () => {
  const dead = await new SnapshotStore(paths, gone).reserve(tag, { replace: false });
  await dead.stageBase();
  const ours = await (await store.reserve(tag, { replace: false })).stageBase();
  await mkdir(join(paths.snapshotsDir, ".other"));
  await store.sweep();
  const left = await readdir(paths.snapshotsDir);
  assert.deepEqual(
    left.map((name) => join(paths.snapshotsDir, name)).sort(),
    [join(paths.snapshotsDir, ".other"), ours.dir].sort(),
  );
});
