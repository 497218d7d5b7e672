import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, copyFile, mkdir, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { parseSnapshotTag } from "@forkd/api";
import { bootId } from "@forkd/host/linux/proc.ts";
import { claimHotDir, findStaleHotDirs } from "@forkd/host/store/hot-dir.ts";
import { layout } from "@forkd/host/store/layout.ts";
import type { MemoryImage, StoreOptions } from "@forkd/host/store/snapshots.ts";
import {
  type ChainStore,
  makeChainStore,
  mapped,
  modelled,
  page,
  secondStore,
  writeBase,
  writeBranch,
} from "../../helpers/chains.ts";
import { eventually } from "../../helpers/eventually.ts";

const tag = parseSnapshotTag;
const layers = [new Map([[0, 1]]), new Map([[9, 2]]), new Map([[9, 3]])];

/** A base, and `count` chains of two links over it: their images cannot be their own files. */
async function makeChains(count: number, options: StoreOptions = {}): Promise<ChainStore> {
  const chain = await makeChainStore(options);
  const [base = new Map(), one = new Map(), two = new Map()] = layers;
  await writeBase(chain.store, "base", base);
  await writeBranch(chain.store, { from: "base", to: "link", pages: one });
  for (let i = 0; i < count; i += 1) {
    await writeBranch(chain.store, { from: "link", to: `c${i}`, pages: two });
  }
  return chain;
}

const coldDir = ({ paths }: ChainStore): string => join(layout.overlaysDir(paths), bootId());
const imageFile = ({ overlay }: MemoryImage): string => overlay?.file ?? assert.fail("no overlay");
const keys = async (dir: string): Promise<string[]> =>
  (await readdir(dir).catch(() => [])).filter((name) => /^[0-9a-f]{64}$/.test(name));

test("an image is made once, for all that ask and for later ones, also of other processes", async () => {
  await using chain = await makeChains(1);
  const other = secondStore(chain);
  const opened = await Promise.all(
    [chain.store, other, chain.store, other].map((store) => store.open(tag("c0"))),
  );
  const files = new Set(opened.map(({ memory }) => imageFile(memory)));
  assert.equal(files.size, 1);
  const [file = ""] = files;
  assert.equal(dirname(dirname(file)), chain.paths.hotDir);
  const { ino } = await stat(file);
  const third = await secondStore(chain).open(tag("c0"));
  assert.equal((await stat(imageFile(third.memory))).ino, ino);
  assert.ok((await mapped(third.memory)).equals(modelled(layers)));
  assert.deepEqual(await readdir(coldDir(chain)), [], "locks");
  const left = (await readdir(chain.paths.hotDir)).filter((name) => name.startsWith("."));
  assert.deepEqual(left, []);
});

test("a builder that died holds no lock", async () => {
  await using chain = await makeChains(1);
  const { manifestSha256 } = await chain.store.open(tag("c0"));
  await rm(chain.paths.hotDir, { recursive: true });
  const dead = JSON.stringify({ pid: process.pid, startTicks: 1, bootId: bootId() });
  await writeFile(join(coldDir(chain), `${manifestSha256}.lock`), dead);
  assert.ok((await mapped((await chain.store.open(tag("c0"))).memory)).equals(modelled(layers)));
});

test("an image for which memory has no room is made on the disk", async () => {
  await using chain = await makeChains(1, { overlays: { hotBytesMax: 0 } });
  const { memory } = await chain.store.open(tag("c0"));
  assert.equal(dirname(dirname(imageFile(memory))), coldDir(chain));
  assert.ok((await mapped(memory)).equals(modelled(layers)));
});

test("a directory in memory that others could write is not used", async () => {
  await using chain = await makeChains(1);
  await chmod(chain.paths.hotDir, 0o777);
  assert.equal(await claimHotDir(chain.paths), false);
  const { memory } = await chain.store.open(tag("c0"));
  assert.equal(dirname(dirname(imageFile(memory))), coldDir(chain));
});

test("over the bound the longest unused image goes; one that is new stays", async () => {
  // Each takes a page and a block for its table, and is thought to take both of its links' pages.
  const overlays = { hotBytesMax: 0, coldBytesMax: 5 * page, graceMs: 0 };
  await using chain = await makeChains(4, { overlays });
  const { store } = chain;
  const first = await store.open(tag("c0"));
  const second = await store.open(tag("c1"));
  await store.open(tag("c0"));
  await store.open(tag("c2"));
  const left = await keys(coldDir(chain));
  assert.ok(left.includes(first.manifestSha256), "used last");
  assert.ok(!left.includes(second.manifestSha256), "unused for longest");
  const patient = secondStore(chain, { overlays: { ...overlays, graceMs: 60_000 } });
  await patient.open(tag("c3"));
  assert.ok((await keys(coldDir(chain))).includes(first.manifestSha256));
});

test("the image of a removed snapshot goes with it", async () => {
  await using chain = await makeChains(2);
  for (const name of ["c0", "c1"]) await chain.store.open(tag(name));
  const before = await keys(chain.paths.hotDir);
  const { manifestSha256 } = await chain.store.open(tag("c0"));
  await chain.store.remove(tag("c0"));
  const after = await keys(chain.paths.hotDir);
  assert.deepEqual(
    before.filter((key) => !after.includes(key)),
    [manifestSha256],
  );
});

test("an image that a process has mapped is not removed, and is once the process ends", async () => {
  const overlays = { hotBytesMax: 0, coldBytesMax: 0, graceMs: 0 };
  await using chain = await makeChains(3, { overlays });
  const { memory, manifestSha256 } = await chain.store.open(tag("c0"));
  // What runs is mapped: a program in the image's place stands for a VMM that has it mapped.
  const file = imageFile(memory);
  await rm(file);
  await copyFile("/bin/sleep", file);
  const mapper = spawn(file, ["60"], { stdio: "ignore" });
  await once(mapper, "spawn");
  await eventually(async () => {
    assert.match(await readFile(`/proc/${mapper.pid}/maps`, "utf8"), new RegExp(file));
  });
  await chain.store.open(tag("c1"));
  assert.ok((await keys(coldDir(chain))).includes(manifestSha256));
  const ended = once(mapper, "exit");
  mapper.kill("SIGKILL");
  await ended;
  await chain.store.open(tag("c2"));
  assert.ok(!(await keys(coldDir(chain))).includes(manifestSha256));
});

test("images from before the last boot, and of data directories that are gone, are swept", async () => {
  await using chain = await makeChains(1);
  const { store, paths } = chain;
  await store.open(tag("c0"));
  const old = join(layout.overlaysDir(paths), "another-boot");
  await mkdir(old, { recursive: true });
  // A sibling of our directory in memory whose owner names a data directory that is not there.
  const root = join(paths.dataDir, "shm");
  const ours = { ...paths, hotDir: join(root, "0".repeat(16)) };
  const theirs = { dataDir: join(paths.dataDir, "gone"), hotDir: join(root, "1".repeat(16)) };
  await mkdir(theirs.dataDir);
  assert.ok(await claimHotDir(ours));
  assert.ok(await claimHotDir({ ...paths, ...theirs }));
  assert.deepEqual(await findStaleHotDirs(ours), []);
  await rm(theirs.dataDir, { recursive: true });
  assert.deepEqual(await findStaleHotDirs(ours), [theirs.hotDir]);
  await store.sweep();
  assert.ok(!(await readdir(layout.overlaysDir(paths))).includes("another-boot"));
  assert.ok((await keys(paths.hotDir)).length > 0, "what can be used stays");
});
