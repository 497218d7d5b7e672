import { createHash } from "node:crypto";
import { readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { ForkdError } from "@forkd/api";
import type { DataPaths } from "../config/data-paths.ts";
import { run } from "../lib/exec.ts";
import { nativeTool } from "../lib/native.ts";
import { findBootFile } from "../store/boot-files.ts";
import { type Chain, type Link, scratchOf } from "../store/chain.ts";
import {
  coveredBytes,
  decodeExtents,
  type Extent,
  encodeExtents,
  pageBytes,
} from "../store/extents.ts";
import { fileIdentity } from "../store/files.ts";
import { scratchLayerFile, snapshotFiles } from "../store/layout.ts";
import { decodeIndex, indexBytesMax } from "../store/memory-index.ts";
import type { PageWorkers } from "../store/pages.ts";
import { findRootImage } from "../store/rootfs.ts";
import { memberPath, type PackedFile } from "./manifest.ts";

/** Looking for the holes of a large disk on a slow file system. */
const extentsTimeoutMs = 60_000;

/** A file of this host that goes into a pack, and what the pack's manifest says of it. */
export interface PlannedFile {
  readonly file: PackedFile;
  /** Absolute. */
  readonly source: string;
  readonly extents: readonly Extent[];
  /** What the name says that the bytes hash to, which nobody has looked at yet. */
  readonly unproven: string | null;
}

export interface PlanScope {
  readonly paths: DataPaths;
  readonly pages: PageWorkers;
  /** For tables of extents. */
  readonly dir: string;
}

/**
 * All files of a chain and, with `images`, of what its snapshots were baked from: small ones first,
 * so that a reader knows early what is to come. Throws image_not_found for a root image that is not
 * there, snapshot_incomplete for a base of version 1, which has no hashes.
 */
export async function planFiles(
  scope: PlanScope,
  chain: Chain,
  images: boolean,
): Promise<PlannedFile[]> {
  const small: PlannedFile[] = [];
  const large: PlannedFile[] = [];
  const layers = new Map<string, string>();
  for (const link of chain) {
    small.push(...(await planSmall(link)));
    large.push(await planMemory(link), ...(await planScratch(scope, link, layers)));
  }
  const shelved = images ? await planImages(scope, chain) : [];
  return [...small, ...large, ...shelved];
}

/** Manifest, index and device state: small, dense and hashed. */
export async function planSmall(
  link: Link,
): Promise<[manifest: PlannedFile, index: PlannedFile, state: PlannedFile]> {
  const { manifest, dir, sha256, vmstateFile, indexFile } = link;
  const { vmstate, index } = manifest.files;
  if (indexFile === null || index === null || vmstate.sha256 === null) {
    const message = `snapshot '${link.tag}' is of format 1, which has no hashes`;
    throw new ForkdError("snapshot_incomplete", message, {
      hint: `pack a copy: forkd snapshot-compact --from ${link.tag} --to NEW`,
    });
  }
  const of = (name: string) => memberPath({ kind: "snapshot", tag: link.tag, name });
  const manifestFile = join(dir, snapshotFiles.manifest);
  return [
    await dense(of(snapshotFiles.manifest), manifestFile, sha256),
    await dense(of(snapshotFiles.index), indexFile, index.sha256),
    await dense(of(snapshotFiles.vmstate), vmstateFile, vmstate.sha256),
  ];
}

/** A file without holes, with the hash that is known of it. */
export async function dense(path: string, source: string, sha256: string): Promise<PlannedFile> {
  const { size } = await stat(source);
  const file = { path, size, stored_bytes: size, sha256 };
  return { file, source, extents: wholeOf(size), unproven: null };
}

function wholeOf(size: number): Extent[] {
  return size === 0 ? [] : [{ offset: 0, length: size }];
}

/** The index names the bytes that count and has their hashes: they are not read for that again. */
export async function planMemory({
  tag,
  memoryFile,
  indexFile,
  manifest,
}: Link): Promise<PlannedFile> {
  const { size } = manifest.files.memory;
  const path = indexFile ?? "";
  const bytes = await readFile(path);
  if (bytes.length > indexBytesMax)
    throw new ForkdError("snapshot_corrupt", `${path} is too large`);
  const { extents } = decodeIndex(bytes, path);
  const name = manifest.parent === null ? snapshotFiles.memory : snapshotFiles.diff;
  const file = {
    path: memberPath({ kind: "snapshot", tag, name }),
    size,
    stored_bytes: coveredBytes(extents),
  };
  return { file, source: memoryFile, extents, unproven: null };
}

/** `layers`: the paths of those that are planned already, by the identity of their files. */
async function planScratch(
  scope: PlanScope,
  link: Link,
  layers: Map<string, string>,
): Promise<PlannedFile[]> {
  const planned: PlannedFile[] = [];
  for (const [place, { file: source }] of (scratchOf(link)?.layers ?? []).entries()) {
    const path = memberPath({ kind: "snapshot", tag: link.tag, name: scratchLayerFile(place) });
    const identity = (await fileIdentity(source)) ?? path;
    const first = layers.get(identity);
    const { size } = await stat(source);
    if (first !== undefined) {
      const file = { path, size, stored_bytes: 0, same_as: first };
      planned.push({ file, source, extents: [], unproven: null });
      continue;
    }
    layers.set(identity, path);
    planned.push(await planLayer(scope, { path, source, size }));
  }
  return planned;
}

interface LayerFile {
  readonly path: string;
  readonly source: string;
  readonly size: number;
}

/** Nothing has hashes of a layer yet. Hashed is what is stored: the holes may be gigabytes. */
async function planLayer(scope: PlanScope, layer: LayerFile): Promise<PlannedFile> {
  const { path, source, size } = layer;
  const extents = await dataOf(scope, source, size);
  const table = encodeExtents(extents);
  const isTable = size % pageBytes === 0;
  const hash = isTable
    ? { stored_sha256: await scope.pages.run("hashExtents", { file: source, table }) }
    : { sha256: await scope.pages.run("hash", { file: source }) };
  const file = { path, size, stored_bytes: coveredBytes(extents), ...hash };
  return { file, source, extents, unproven: null };
}

/** What is not a hole, in whole pages; all of a file that does not end with a page. */
async function dataOf(
  { dir }: PlanScope,
  source: string,
  size: number,
): Promise<readonly Extent[]> {
  if (size % pageBytes !== 0) return wholeOf(size);
  const table = join(dir, "extents");
  await rm(table, { force: true });
  await run([nativeTool("forkd-sparse"), "data", source, table], { timeoutMs: extentsTimeoutMs });
  return decodeExtents(await readFile(table), { memoryBytes: size, path: source });
}

async function planImages(scope: PlanScope, chain: Chain): Promise<PlannedFile[]> {
  const manifests = chain.map(({ manifest }) => manifest);
  const roots = new Set(manifests.map(({ rootfs }) => rootfs.sha256));
  const boots = new Set(
    manifests.flatMap(({ kernel }) => [kernel.vmlinuz_sha256, kernel.initrd_sha256]),
  );
  const planned: PlannedFile[] = [];
  for (const sha256 of boots) {
    const source = await findBootFile(scope.paths, sha256);
    // Children need neither: what the user brought to a bake may be anywhere.
    if (source === undefined) continue;
    const file = await dense(memberPath({ kind: "boot", sha256 }), source, sha256);
    planned.push({ ...file, unproven: sha256 });
  }
  for (const sha256 of roots) planned.push(...(await planRoot(scope, sha256)));
  return planned;
}

async function planRoot(scope: PlanScope, sha256: string): Promise<PlannedFile[]> {
  const image = await findRootImage(scope.paths, sha256);
  if (image === undefined) {
    throw new ForkdError("image_not_found", `the root image ${sha256} is not on this host`, {
      hint: "pack without it, for a host that has it: forkd pack --thin --tag TAG",
    });
  }
  const record = image.path.replace(/\.img$/, ".json");
  // A few hundred bytes: a thread for them would take longer to start.
  const recordHash = createHash("sha256")
    .update(await readFile(record))
    .digest("hex");
  const extents = await dataOf(scope, image.path, image.sizeBytes);
  const path = memberPath({ kind: "image", sha256 });
  const file = { path, size: image.sizeBytes, stored_bytes: coveredBytes(extents), sha256 };
  return [
    await dense(memberPath({ kind: "record", sha256 }), record, recordHash),
    { file, source: image.path, extents, unproven: sha256 },
  ];
}
