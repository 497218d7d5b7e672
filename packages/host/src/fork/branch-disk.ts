import { chmod, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { ForkdError, type SandboxId } from "@forkd/api";
import type { DiskPivot, NumberedLayer, ScratchDisk } from "../engine/engine.ts";
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
}

/**
 * The part of one branch that the scratch disk has: the layer that the guest writes is frozen at
 * the captured instant, and a new one takes its place. The record says beforehand what the new one
 * will be; after a crash the VMM says whether it is.
 */
export class DiskTurn {
  readonly pivots: readonly DiskPivot[];
  /** Oldest first; none of them is written after the pivot. */
  readonly frozen: readonly NumberedLayer[];
  readonly #owner: DiskOwner;
  readonly #next: NumberedLayer | null;
  #pivoted = false;

  private constructor(owner: DiskOwner, plan: DiskPlan | null) {
    this.#owner = owner;
    this.pivots = plan === null ? [] : [plan.pivot];
    this.frozen = plan?.layers ?? [];
    this.#next = plan?.next ?? null;
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
    const next = this.#next;
    if (next === null) return;
    const { deps, id, child, parent } = this.#owner;
    if (!this.#pivoted) {
      await requireScratch(child).drop([next.number]);
      await rm(next.file, { force: true });
      await child.journal.write({ nextLayer: null });
      return;
    }
    await child.journal.write({ diskLayers: [...this.frozen, next], nextLayer: null });
    await Promise.all(ownOf(child, this.frozen).map(({ file }) => chmod(file, 0o400)));
    const frozen = this.frozen.map(({ file }) => file);
    await deps.disks.admit(child.vm, id, [...sharedFiles(parent), ...frozen]);
  }
}

interface DiskPlan {
  readonly layers: readonly NumberedLayer[];
  readonly next: NumberedLayer;
  readonly pivot: DiskPivot;
}

/** Null for a sandbox without a scratch disk. */
async function planTurn({ child, parent }: DiskOwner): Promise<DiskPlan | null> {
  const { journal } = child;
  if (journal.record.diskLayers.length === 0 || parent.scratch === null) return null;
  const scratch = requireScratch(child);
  const layers = await merged(child, await currentLayers(child));
  requireDepth(parent.tag, layers.length);
  const top = topOf(layers);
  const number = Math.max(top.number, journal.record.nextLayer?.number ?? 0) + 1;
  const next = { ...ownLayer(journal.workDir, number), number };
  await journal.write({ diskLayers: layers, nextLayer: next });
  const bytes = parent.scratch.sizeMib * 1024 * 1024;
  return { layers, next, pivot: await scratch.add(next, { under: top.number, bytes }) };
}

/** What the disk consists of, by the word of the VMM: the record may be one layer behind. */
async function currentLayers(child: Child): Promise<readonly NumberedLayer[]> {
  const { diskLayers, nextLayer } = child.journal.record;
  const top = await requireScratch(child).top();
  if (topOf(diskLayers).number === top) {
    if (nextLayer === null) return diskLayers;
    await requireScratch(child).drop([nextLayer.number]);
    await rm(nextLayer.file, { force: true });
    return diskLayers;
  }
  if (nextLayer?.number === top) return [...diskLayers, nextLayer];
  throw new ForkdError("internal", `the scratch disk writes to layer ${top}, which no record has`);
}

/** Many layers of the sandbox's own become one. What snapshots have of them stays as it is. */
async function merged(
  child: Child,
  layers: readonly NumberedLayer[],
): Promise<readonly NumberedLayer[]> {
  const own = ownOf(child, layers);
  if (own.length < ownLayersMax) return layers;
  const below = layers.slice(0, layers.length - own.length);
  const top = topOf(layers);
  const between = own.slice(0, -1);
  await requireScratch(child).merge({ top: top.number, base: topOf(below).number });
  const left = [...below, top];
  await child.journal.write({ diskLayers: left });
  await requireScratch(child).drop(between.map(({ number }) => number));
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

function requireScratch({ vm }: Child): ScratchDisk {
  if (vm.scratch !== null) return vm.scratch;
  throw new ForkdError("engine_failed", "this engine cannot branch a guest with a scratch disk");
}
