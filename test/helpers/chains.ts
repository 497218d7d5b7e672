import assert from "node:assert/strict";
import { mkdir, open, readFile, writeFile } from "node:fs/promises";
import { parseSnapshotTag, type SnapshotInfo } from "@forkd/api";
import { type DataPaths, resolveDataPaths } from "@forkd/host/config/data-paths.ts";
import { identifyProcess } from "@forkd/host/linux/proc.ts";
import { coalesce, decodeExtents, encodeExtents } from "@forkd/host/store/extents.ts";
import { layout } from "@forkd/host/store/layout.ts";
import {
  type MemoryImage,
  type Snapshot,
  type SnapshotStaging,
  SnapshotStore,
  type StoreOptions,
} from "@forkd/host/store/snapshots.ts";
import { sampleFacts } from "./sample-manifest.ts";
import { makeTmpDir } from "./tmp.ts";

/** A store with small guests, whose chains are written as a capture would write them. */
export interface ChainStore extends AsyncDisposable {
  readonly store: SnapshotStore;
  readonly paths: DataPaths;
}

export const page = 4096;
export const memoryMib = 2;
export const memoryBytes = memoryMib * 1024 * 1024;
export const memoryPages = memoryBytes / page;

/** Pages by their number; the value is the byte that fills it. */
export type Pages = ReadonlyMap<number, number>;

const owner = identifyProcess(process.pid) ?? assert.fail();

export async function makeChainStore(options: StoreOptions = {}): Promise<ChainStore> {
  const dir = await makeTmpDir("chain");
  // Images in memory too go where the test's own directory is, and go with it.
  const paths = { ...resolveDataPaths({ FORKD_DATA_DIR: dir.path }, 0), hotDir: `${dir.path}/hot` };
  await mkdir(paths.rootfsDir);
  await writeFile(layout.rootImage(paths, "c".repeat(64)), "root");
  return {
    store: new SnapshotStore(paths, owner, options),
    paths,
    [Symbol.asyncDispose]: () => dir[Symbol.asyncDispose](),
  };
}

/** Another view of the same data directory, as a second process has it. */
export function secondStore({ paths }: ChainStore, options: StoreOptions = {}): SnapshotStore {
  return new SnapshotStore(paths, owner, options);
}

async function writePages(path: string, pages: Pages): Promise<void> {
  await using file = await open(path, "w");
  await file.truncate(memoryBytes);
  for (const [number, byte] of pages) {
    if (byte !== 0) await file.write(Buffer.alloc(page, byte), 0, page, number * page);
  }
}

export async function writeChanges(staging: SnapshotStaging, pages: Pages): Promise<void> {
  await writePages(staging.memoryFile, pages);
  const numbers = [...pages.keys()].sort((a, b) => a - b);
  const extents = coalesce(numbers.map((n) => ({ offset: n * page, length: page })));
  await writeFile(staging.extentsFile, encodeExtents(extents));
}

export async function writeBase(
  store: SnapshotStore,
  name: string,
  pages: Pages,
): Promise<SnapshotInfo> {
  const reservation = await store.reserve(parseSnapshotTag(name), { replace: false });
  try {
    const staging = await reservation.stageBase();
    await writeFile(staging.vmstateFile, `state of ${name}`);
    await writePages(staging.memoryFile, pages);
    return await staging.publish(sampleFacts(memoryMib));
  } finally {
    await reservation.release();
  }
}

export interface Branch {
  readonly from: string;
  readonly to: string;
  readonly pages: Pages;
  /** A base of its own, instead of a link. */
  readonly flat?: boolean;
}

/** What a branch of a child of `from` leaves, whose guest has changed those pages. */
export async function writeBranch(store: SnapshotStore, branch: Branch): Promise<SnapshotInfo> {
  const { from, to, pages, flat = false } = branch;
  const parent = await store.open(parseSnapshotTag(from));
  const reservation = await store.reserve(parseSnapshotTag(to), { replace: false });
  try {
    const staging = await (flat ? reservation.stageFlat(parent) : reservation.stageLink(parent));
    await writeFile(staging.vmstateFile, `state of ${to}`);
    await writeChanges(staging, pages);
    return await staging.publish({ ...sampleFacts(memoryMib), bake: null });
  } finally {
    await reservation.release();
  }
}

/** The RAM as a VMM maps it: the base, and the overlay's extents over it. */
export async function mapped({ base, overlay }: MemoryImage): Promise<Buffer> {
  const ram = await readFile(base);
  if (overlay === null) return ram;
  const [table, over] = await Promise.all([readFile(overlay.extents), readFile(overlay.file)]);
  for (const { offset, length } of decodeExtents(table, { memoryBytes, path: overlay.extents })) {
    over.copy(ram, offset, offset, offset + length);
  }
  return ram;
}

/** The RAM that the pages make, later ones over earlier ones. */
export function modelled(layers: readonly Pages[]): Buffer {
  const ram = Buffer.alloc(memoryBytes);
  for (const pages of layers) {
    for (const [number, byte] of pages) ram.fill(byte, number * page, (number + 1) * page);
  }
  return ram;
}

/** Writes a link to a snapshot that was opened earlier. */
export async function writeLate(store: SnapshotStore, parent: Snapshot): Promise<SnapshotInfo> {
  const reservation = await store.reserve(parseSnapshotTag("late"), { replace: false });
  try {
    const staging = await reservation.stageLink(parent);
    await writeFile(staging.vmstateFile, "state");
    await writeChanges(staging, new Map([[1, 1]]));
    return await staging.publish(sampleFacts(memoryMib));
  } finally {
    await reservation.release();
  }
}
