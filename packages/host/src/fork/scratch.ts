import { copyFile, constants as fsConstants, link } from "node:fs/promises";
import { join } from "node:path";
import { ForkdError, limits } from "@forkd/api";
import type { ChildScratch, DiskLayer, NumberedLayer, ScratchKind } from "../engine/engine.ts";
import { makeEmptyExt4 } from "../image/ext4.ts";
import { isErrno } from "../lib/atomic.ts";
import { scratchLayerFile } from "../store/layout.ts";
import type { ScratchFacts } from "../store/manifest.ts";
import { measure, type Snapshot } from "../store/snapshots.ts";

const mib = 1024 * 1024;

/** Makes the disk of a new parent, a file system that holds nothing. Throws disk_full. */
export async function makeParentScratch(
  dir: string,
  sizeMib: number | undefined,
  signal: AbortSignal,
): Promise<DiskLayer | null> {
  if (sizeMib === undefined) return null;
  const file = join(dir, scratchLayerFile(0));
  await makeEmptyExt4({ path: file, sizeMib, label: "forkd-scratch", signal });
  return { file, format: "raw" };
}

/**
 * What the disk of a child begins with, as its engine takes it. Throws chain_too_long;
 * snapshot_incompatible for layers that are for another kind of engine.
 */
export function childScratch(
  { tag, scratch }: Pick<Snapshot, "tag" | "scratch">,
  { kind, workDir }: { readonly kind: ScratchKind; readonly workDir: string },
): ChildScratch | null {
  if (scratch === null) return null;
  const { layers } = scratch;
  switch (kind) {
    case "layers":
      requireDepth(tag, layers.length);
      return { kind, layers: [...layers, ownLayer(workDir, layers.length)] };
    case "file":
      return { kind, frozen: onlyRaw(tag, layers) };
  }
}

/** The layers that a record has to name; a disk that is one file has none. */
export function recordedLayers(scratch: ChildScratch | null): readonly NumberedLayer[] {
  if (scratch === null || scratch.kind === "file") return [];
  return scratch.layers.map((layer, number) => ({ ...layer, number }));
}

/**
 * The file of a disk that is one raw layer, as engines of files make them. Throws
 * snapshot_incompatible for another: a pack may say anything of a disk, and a qcow2 that is read as
 * raw is another disk.
 */
function onlyRaw(tag: string, layers: readonly DiskLayer[]): string {
  const [only, ...more] = layers;
  if (only?.format === "raw" && more.length === 0) return only.file;
  const formats = layers.map(({ format }) => format).join(", ");
  const message = `the scratch disk of '${tag}' is not one raw file, but: ${formats || "nothing"}`;
  throw new ForkdError("snapshot_incompatible", message, {
    hint: `remove it and bake it again: forkd rmi ${tag}`,
  });
}

/** What a sandbox writes at a place of its disk's chain, from its birth or a branch on. */
export function ownLayer(workDir: string, place: number): DiskLayer {
  return { file: join(workDir, `${scratchLayerFile(place)}.qcow2`), format: "qcow2" };
}

/** Throws chain_too_long when nothing can be put on a disk of so many layers. */
export function requireDepth(tag: string, layers: number): void {
  if (layers <= limits.scratchLayersMax) return;
  const message = `the scratch disk of '${tag}' has ${layers} layers, no more are allowed`;
  throw new ForkdError("chain_too_long", message, {
    hint: "branch from an earlier snapshot, or bake a new one",
  });
}

/** Throws scratch_unavailable when a snapshot's children have no disk of that size. */
export function requireScratch({ tag, scratch }: Snapshot, minMib: number | undefined): void {
  if (minMib === undefined || (scratch !== null && scratch.sizeMib >= minMib)) return;
  const has = scratch === null ? "no scratch disk" : `a scratch disk of ${scratch.sizeMib} MiB`;
  throw new ForkdError(
    "scratch_unavailable",
    `snapshot '${tag}' was baked with ${has}, its children cannot have ${minMib} MiB`,
    { hint: `bake it with a larger one: forkd from-image --scratch-mib ${minMib}` },
  );
}

/** Puts the layers of a disk into a new snapshot. None may be written any more. */
export async function keepLayers(layers: readonly DiskLayer[], dir: string): Promise<void> {
  for (const [place, { file }] of layers.entries()) {
    const to = join(dir, scratchLayerFile(place));
    if (to !== file) await linkOrCopy(file, to);
  }
}

/** A disk as it lies in a new snapshot's directory. */
export interface FrozenDisk {
  readonly dir: string;
  /** Oldest first. */
  readonly layers: readonly DiskLayer[];
  /** Of what it was made as; null: there is none. */
  readonly sizeMib: number | null;
}

/**
 * What the manifest says of the layers that are in a snapshot's directory. Throws engine_failed
 * when a VMM, which may write the disk, left it in another size.
 */
export async function describeLayers({
  dir,
  layers,
  sizeMib,
}: FrozenDisk): Promise<ScratchFacts | null> {
  if (sizeMib === null) return null;
  const described = layers.map(async ({ format }, place) => {
    const { size } = await measure(join(dir, scratchLayerFile(place)));
    return { format, size };
  });
  const sizes = await Promise.all(described);
  const bytes = sizes[0]?.size ?? 0;
  if (bytes === sizeMib * mib) return { size_mib: sizeMib, layers: sizes };
  const message = `the scratch disk has ${bytes} bytes, and not ${sizeMib} MiB`;
  throw new ForkdError("engine_failed", message);
}

/** One file serves all who only read it; another file system than the snapshots' takes a copy. */
async function linkOrCopy(from: string, to: string): Promise<void> {
  try {
    await link(from, to);
  } catch (error) {
    if (!isErrno(error, "EXDEV")) throw error;
    await copyFile(from, to, fsConstants.COPYFILE_FICLONE | fsConstants.COPYFILE_EXCL);
  }
}
