import {
  ForkdError,
  type SnapshotInfo,
  type SnapshotInfoDetail,
  type SnapshotTag,
} from "@forkd/api";
import type { DataPaths } from "../config/data-paths.ts";
import type { ProcessIdentity } from "../linux/proc.ts";
import { type Chain, ChainReader, type Link, scratchOf } from "./chain.ts";
import { describeDetail, describeFailed, describeSnapshot } from "./describe.ts";
import { requireFile, statOrUndefined } from "./files.ts";
import { layout } from "./layout.ts";
import type { Manifest, SnapshotFacts } from "./manifest.ts";
import { OverlayCache, type OverlayLimits } from "./overlays.ts";
import { PageWorkers } from "./pages.ts";
import { describeReserved, Reservations } from "./reservations.ts";
import { Shelf } from "./shelf.ts";
import type { Snapshot } from "./snapshot.ts";
import { copyState } from "./staging.ts";
import { sweepStagingDirs } from "./staging-dirs.ts";
import { VerifiedLayers } from "./verified.ts";
import { type Reservation, Writing } from "./writing.ts";

export { measure } from "./files.ts";
export type { SnapshotFacts } from "./manifest.ts";
export type { MemoryImage } from "./overlays.ts";
export type { Snapshot } from "./snapshot.ts";
export type { Reservation, SnapshotStaging, StagedCopy } from "./writing.ts";

/** What happens to the snapshots that were made from one that is removed. */
export type RemoveMode = "refuse" | "cascade" | "orphan";

export interface StoreOptions {
  readonly overlays?: Partial<OverlayLimits>;
  /** Why this host cannot run a snapshot that is whole; undefined when it can. For lists. */
  readonly unfit?: (manifest: Manifest) => Promise<string | undefined>;
}

/** Snapshots on disk: the directory is the index. */
export class SnapshotStore {
  readonly #paths: DataPaths;
  readonly #reservations = new Reservations();
  readonly #chains: ChainReader;
  readonly #verified: VerifiedLayers;
  readonly #overlays: OverlayCache;
  readonly #shelf: Shelf;
  readonly #writing: Writing;
  readonly #unfit: NonNullable<StoreOptions["unfit"]>;

  /** `owner` is this process: its staging directories carry its name. */
  constructor(paths: DataPaths, owner: ProcessIdentity, options: StoreOptions = {}) {
    const pages = new PageWorkers();
    const chains = new ChainReader(paths);
    const verified = new VerifiedLayers(layout.verifiedDir(paths), pages);
    const overlays = new OverlayCache({ paths, owner, pages, limits: options.overlays ?? {} });
    const reservations = this.#reservations;
    const parts = { paths, owner, chains, verified, overlays, reservations };
    this.#paths = paths;
    this.#chains = chains;
    this.#verified = verified;
    this.#shelf = new Shelf(parts);
    this.#writing = new Writing({ ...parts, shelf: this.#shelf, pages });
    this.#overlays = overlays;
    this.#unfit = options.unfit ?? (async () => undefined);
  }

  /** Whether the tag's name is taken, by whatever. */
  async has(tag: SnapshotTag): Promise<boolean> {
    return this.#reservations.has(tag) || this.#shelf.has(tag);
  }

  /**
   * Takes a tag. Throws snapshot_exists, unless `replace` is set and it is not being written;
   * snapshot_in_use when others were made from the one that is to be replaced.
   */
  reserve(tag: SnapshotTag, options: { readonly replace: boolean }): Promise<Reservation> {
    return this.#writing.reserve(tag, options.replace);
  }

  /**
   * Throws snapshot_not_found, snapshot_not_ready while it is written, snapshot_incomplete or
   * snapshot_corrupt that name the file and what is wrong, disk_full.
   */
  async open(tag: SnapshotTag): Promise<Snapshot> {
    const chain = await this.chain(tag);
    await this.#requireRootImage(chain);
    const head = chain.at(-1) ?? chain[0];
    return {
      tag,
      dir: head.dir,
      manifest: head.manifest,
      manifestSha256: head.sha256,
      vmstateFile: head.vmstateFile,
      rootImage: layout.rootImage(this.#paths, head.manifest.rootfs.sha256),
      memory: await this.#overlays.image(chain),
      scratch: scratchOf(head),
      chain,
    };
  }

  /** The chain of a tag alone, its bytes those that were written. Throws what `open` throws. */
  async chain(tag: SnapshotTag): Promise<Chain> {
    this.#reservations.requireUsable(tag);
    const chain = await this.#chains.resolve(tag);
    await Promise.all(chain.map((link) => this.#verified.require(link)));
    return chain;
  }

  /** Every tag once, those that cannot be forked with status failed and the reason. */
  async list(): Promise<SnapshotInfo[]> {
    // First the reservations: one that is published meanwhile is then still seen, and once.
    const reserved = this.#reservations.unwritten();
    const hidden = new Set(reserved.map(({ tag }) => tag));
    const tags = (await this.#shelf.tags()).filter((tag) => !hidden.has(tag));
    const glance: Glance = {
      chainOf: this.#chains.atOnce(),
      damageOf: once((link: Link) => this.#verified.knownDamage(link)),
    };
    const found = await Promise.all(tags.map((tag) => this.#describe(tag, glance)));
    const infos = found.filter((info) => info !== undefined);
    return [...infos, ...reserved.map(describeReserved)].sort((a, b) => (a.tag < b.tag ? -1 : 1));
  }

  /** Throws what `open` throws, but looks at no bytes. */
  async info(tag: SnapshotTag): Promise<SnapshotInfoDetail> {
    this.#reservations.requireUsable(tag);
    const chain = await this.#chains.resolve(tag);
    return describeDetail(chain, (await this.#shelf.family()).childrenOf(tag));
  }

  /**
   * Writes the RAM of a chain as a base of its own, without depth. Throws what `open` and
   * `reserve` throw.
   */
  async compact(from: SnapshotTag, to: SnapshotTag): Promise<SnapshotInfo> {
    const reservation = await this.reserve(to, { replace: false });
    try {
      reservation.note({ branched_from: `compact:${from}` });
      const source = await this.open(from);
      const staging = await reservation.stageCompact(source);
      await copyState(source.dir, staging.dir);
      return await staging.publish(compactFacts(source));
    } finally {
      await reservation.release();
    }
  }

  /**
   * Removes a snapshot; its name is free at once. Throws snapshot_not_found, snapshot_not_ready
   * while it or, with `cascade`, one of its descendants is written, snapshot_in_use when others
   * were made from it and `mode` is `refuse`. `cascade` removes those too, the last made first;
   * `orphan` leaves them, and they cannot be forked any more.
   */
  async remove(tag: SnapshotTag, mode: RemoveMode = "refuse"): Promise<void> {
    this.#reservations.requireWritten(tag);
    if (this.#reservations.dismiss(tag)) return;
    if (mode === "refuse") await this.#shelf.requireChildless(tag);
    if (mode !== "cascade") return this.#shelf.remove(tag);
    const doomed = (await this.#shelf.family()).descendantsFirst(tag);
    for (const each of doomed) this.#reservations.requireWritten(each);
    for (const each of doomed) await this.#shelf.remove(each);
  }

  /** Removes what processes that are gone were writing or removing. */
  async sweep(): Promise<void> {
    await sweepStagingDirs(this.#paths.snapshotsDir);
    await this.#overlays.sweep();
  }

  async #requireRootImage(chain: Chain): Promise<void> {
    const { manifest } = chain.at(-1) ?? chain[0];
    await requireFile(layout.rootImage(this.#paths, manifest.rootfs.sha256), undefined);
  }

  async #describe(
    tag: SnapshotTag,
    { chainOf, damageOf }: Glance,
  ): Promise<SnapshotInfo | undefined> {
    try {
      const chain = await chainOf(tag);
      await this.#requireRootImage(chain);
      const known = await Promise.all(chain.map(damageOf));
      const damage = known.find((found) => found !== undefined);
      if (damage !== undefined) return this.#describeFailed(tag, damage);
      const unfit = await this.#unfit((chain.at(-1) ?? chain[0]).manifest);
      const info = describeSnapshot(chain);
      return unfit === undefined ? info : { ...info, bootable: false, warning: unfit };
    } catch (error) {
      if (!(error instanceof ForkdError)) throw error;
      return this.#describeFailed(tag, error.message);
    }
  }

  /** Undefined when it was removed meanwhile. */
  async #describeFailed(tag: SnapshotTag, reason: string): Promise<SnapshotInfo | undefined> {
    const dir = layout.snapshotDir(this.#paths, tag);
    const stats = await statOrUndefined(dir);
    if (stats === undefined) return undefined;
    const stored = await this.#chains.manifest(tag).catch(() => undefined);
    const createdAtUnix = Math.floor(stats.mtimeMs / 1000);
    return describeFailed({ tag, dir, createdAtUnix, stored, reason });
  }
}

/** All snapshots at one instant: what many of them have in common is looked at once. */
interface Glance {
  readonly chainOf: (tag: SnapshotTag) => Promise<Chain>;
  readonly damageOf: (link: Link) => Promise<string | undefined>;
}

function once<In, Out>(work: (input: In) => Out): (input: In) => Out {
  const known = new Map<In, Out>();
  return (input) => {
    const found = known.get(input) ?? work(input);
    known.set(input, found);
    return found;
  };
}

function compactFacts({ tag, manifest }: Snapshot): SnapshotFacts {
  const { engine, machine, kernel, rootfs, agent, scratch } = manifest;
  return {
    engine,
    machine,
    kernel,
    rootfs,
    agent,
    scratch,
    bake: null,
    branch: {
      branched_from: `compact:${tag}`,
      mode: "compact",
      pause_ms: null,
      diff_ms: null,
      diff_physical_bytes: null,
      diff_logical_bytes: null,
      warning: null,
    },
  };
}
