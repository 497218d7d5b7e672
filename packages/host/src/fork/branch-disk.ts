import { chmod, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { ForkdError, type SandboxId } from "@forkd/api";
import type {
  DiskCapture,
  DiskLayer,
  DiskPivot,
  LayeredScratch,
  NumberedLayer,
} from "../engine/engine.ts";
import { scratchLayerFile } from "../store/layout.ts";
import type { Snapshot } from "../store/snapshots.ts";
import { type Child, sharedFiles } from "./child.ts";
import type { ForkDeps } from "./deps.ts";
import { ownLayer, requireDepth } from "./scratch.ts";

/**
 * Layers of its own that a sandbox may have before they are merged into one: each branch adds one,
 * and each is a look-up more for a block that was not written since.
 */
const ownLayersMax = 8;

export interface DiskOwner {
  readonly deps: ForkDeps;
  readonly id: SandboxId;
  readonly child: Child;
  readonly parent: Snapshot;
  /** Where the new snapshot is put together. */
  readonly dir: string;
}

/**
 * The part of one branch that the scratch disk has.
 *
 * A disk of layers: the one that the guest writes is frozen at the captured instant, and a new one
 * takes its place. The record says beforehand what the new one will be; after a crash the VMM says
 * whether it is. A disk that is a file: the capture copies it to where the snapshot has it.
 */
export class DiskTurn {
  readonly captures: readonly DiskCapture[];
  /** Oldest first; none of them is written after the capture. */
  readonly frozen: readonly DiskLayer[];
  readonly #owner: DiskOwner;
  readonly #pivot: PivotPlan | null;
  #pivoted = false;

  private constructor(owner: DiskOwner, plan: DiskPlan) {
    this.#owner = owner;
    this.captures = plan.captures;
    this.frozen = plan.frozen;
    this.#pivot = plan.pivot;
  }

  /** Throws chain_too_long, disk_full, engine_failed. */
  static async begin(owner: DiskOwner): Promise<DiskTurn> {
    return new DiskTurn(owner, await planTurn(owner));
  }

  /** To be told by the capture. */
  readonly onPivot = (): void => {
    this.#pivoted = true;
  };

  /**
   * Call once, whatever came of the capture. Throws disk_shared when the VM could still write what
   * the new snapshot will read.
   */
  async settle(): Promise<void> {
    if (this.#pivot === null) return;
    const { scratch, layers, next } = this.#pivot;
    const { deps, id, child, parent } = this.#owner;
    if (!this.#pivoted) {
      await scratch.drop([next.number]);
      await rm(next.file, { force: true });
      await child.journal.write({ nextLayer: null });
      return;
    }
    await child.journal.write({ diskLayers: [...layers, next], nextLayer: null });
    await Promise.all(ownOf(child, layers).map(({ file }) => chmod(file, 0o400)));
    const frozen = layers.map(({ file }) => file);
    await deps.disks.admit(child.vm, id, [...sharedFiles(parent), ...frozen]);
  }
}

interface DiskPlan {
  readonly captures: readonly DiskCapture[];
  readonly frozen: readonly DiskLayer[];
  /** For a disk of layers. */
  readonly pivot: PivotPlan | null;
}

interface PivotPlan {
  readonly scratch: LayeredScratch;
  readonly layers: readonly NumberedLayer[];
  readonly next: NumberedLayer;
  readonly pivot: DiskPivot;
}

async function planTurn(owner: DiskOwner): Promise<DiskPlan> {
  const { child, parent, dir } = owner;
  if (parent.scratch === null) return { captures: [], frozen: [], pivot: null };
  const bytes = parent.scratch.sizeMib * 1024 * 1024;
  const { scratch } = child.vm;
  switch (scratch.kind) {
    case "layers": {
      const pivot = await planPivot(owner, scratch, bytes);
      return { captures: [pivot.pivot], frozen: pivot.layers, pivot };
    }
    case "file": {
      const to = join(dir, scratchLayerFile(0));
      const captures = [{ kind: "copy", to, bytes }] as const;
      return { captures, frozen: [{ file: to, format: "raw" }], pivot: null };
    }
  }
}

async function planPivot(
  { child, parent }: DiskOwner,
  scratch: LayeredScratch,
  bytes: number,
): Promise<PivotPlan> {
  const { journal } = child;
  const disk = { child, scratch };
  const layers = await merged(disk, await currentLayers(disk));
  requireDepth(parent.tag, layers.length);
  const top = topOf(layers);
  const number = Math.max(top.number, journal.record.nextLayer?.number ?? 0) + 1;
  const next = { ...ownLayer(journal.workDir, number), number };
  await journal.write({ diskLayers: layers, nextLayer: next });
  const pivot = await scratch.add(next, { under: top.number, bytes });
  return { scratch, layers, next, pivot };
}

interface LayeredDisk {
  readonly child: Child;
  readonly scratch: LayeredScratch;
}

/** What the disk consists of, by the word of the VMM: the record may be one layer behind. */
async function currentLayers({ child, scratch }: LayeredDisk): Promise<readonly NumberedLayer[]> {
  const { diskLayers, nextLayer } = child.journal.record;
  const top = await scratch.top();
  if (topOf(diskLayers).number === top) {
    if (nextLayer === null) return diskLayers;
    await scratch.drop([nextLayer.number]);
    await rm(nextLayer.file, { force: true });
    return diskLayers;
  }
  if (nextLayer?.number === top) return [...diskLayers, nextLayer];
  throw new ForkdError("internal", `the scratch disk writes to layer ${top}, which no record has`);
}

/** Many layers of the sandbox's own become one. What snapshots have of them stays as it is. */
async function merged(
  { child, scratch }: LayeredDisk,
  layers: readonly NumberedLayer[],
): Promise<readonly NumberedLayer[]> {
  const own = ownOf(child, layers);
  if (own.length < ownLayersMax) return layers;
  const below = layers.slice(0, layers.length - own.length);
  const top = topOf(layers);
  const between = own.slice(0, -1);
  await scratch.merge({ top: top.number, base: topOf(below).number });
  const left = [...below, top];
  await child.journal.write({ diskLayers: left });
  await scratch.drop(between.map(({ number }) => number));
  for (const { file } of between) await rm(file, { force: true });
  return left;
}

function ownOf({ journal }: Child, layers: readonly NumberedLayer[]): readonly NumberedLayer[] {
  return layers.filter(({ file }) => dirname(file) === journal.workDir);
}

function topOf(layers: readonly NumberedLayer[]): NumberedLayer {
  const top = layers.at(-1);
  if (top !== undefined) return top;
  throw new ForkdError("internal", "a scratch disk has no layers");
}
