import { chmod, readdir } from "node:fs/promises";
import { join } from "node:path";
import { ForkdError, limits, type SnapshotInfo, type SnapshotTag, toForkdError } from "@forkd/api";
import { publishDir } from "../lib/atomic.ts";
import type { ChainReader } from "./chain.ts";
import { describeSnapshot } from "./describe.ts";
import { layout } from "./layout.ts";
import { type Manifest, type SnapshotFacts, writeManifest } from "./manifest.ts";
import type { PageWorkers } from "./pages.ts";
import { describeReserved, type Reserved, type WritingFacts } from "./reservations.ts";
import type { Shelf, ShelfOptions } from "./shelf.ts";
import type { Snapshot } from "./snapshot.ts";
import { type StagedFiles, type StagingKind, sealStaged, stagedFiles } from "./staging.ts";
import { makeStagingDir, removeTree } from "./staging-dirs.ts";
import { verifyCopy } from "./verified.ts";

/** Of every file of a published snapshot. */
const publishedMode = 0o400;

/** A directory being filled; nobody sees it before `publish`. */
export interface SnapshotStaging extends StagedFiles {
  /**
   * Hashes what is there, adds index and manifest, syncs, and gives the directory its name, which
   * ends the reservation. Throws snapshot_exists when another process was faster,
   * snapshot_incomplete when the parent is gone, snapshot_in_use, disk_full.
   */
  publish(facts: SnapshotFacts): Promise<SnapshotInfo>;
}

/** A directory that is filled with a whole snapshot, manifest and all. */
export interface StagedCopy {
  readonly dir: string;
  /**
   * Hashes what is there and compares it with its manifest, once. Throws snapshot_incomplete,
   * snapshot_corrupt.
   */
  verify(): Promise<Manifest>;
  /** Verifies, then does what {@link SnapshotStaging.publish} does with what is there. */
  publish(): Promise<SnapshotInfo>;
  /** Gives it its name as it is: a snapshot of another program, which is listed and never run. */
  publishForeign(): Promise<void>;
}

/**
 * A tag that is taken before there is anything under it: listed once, as `writing`, and neither
 * forked, removed nor taken again. It ends with `publish`, `fail` or `release`.
 */
export interface Reservation {
  readonly tag: SnapshotTag;
  /** What lists say of it from now on. */
  note(facts: WritingFacts): void;
  describe(): SnapshotInfo;
  /** A snapshot with RAM of its own, which is written to `memoryFile` whole. */
  stageBase(): Promise<SnapshotStaging>;
  /** Changed pages over `parent`. Throws chain_too_long. */
  stageLink(parent: Snapshot): Promise<SnapshotStaging>;
  /** Changed pages over `parent`, put together with it when they are published. */
  stageFlat(parent: Snapshot): Promise<SnapshotStaging>;
  /** All of `parent`, put together when it is published. */
  stageCompact(parent: Snapshot): Promise<SnapshotStaging>;
  /** A snapshot that was made elsewhere, whose files are put there as they are. */
  stageCopy(): Promise<StagedCopy>;
  /** Removes what was staged and lists the tag as failed, for that reason, until it is removed. */
  fail(reason: unknown): Promise<void>;
  /** Removes what was staged; the tag is free. Idempotent, and nothing after `publish`. */
  release(): Promise<void>;
}

export interface WritingOptions extends ShelfOptions {
  readonly shelf: Shelf;
  readonly pages: PageWorkers;
}

/** How snapshots come to be: reserved, staged, sealed, published. */
export class Writing {
  readonly #options: WritingOptions;

  constructor(options: WritingOptions) {
    this.#options = options;
  }

  /**
   * Takes a tag. Throws snapshot_exists, unless `replace` is set and it is not being written;
   * snapshot_in_use when others were made from the one that is to be replaced.
   */
  async reserve(tag: SnapshotTag, replace: boolean): Promise<Reservation> {
    const { paths, shelf, reservations } = this.#options;
    const dir = layout.snapshotDir(paths, tag);
    const reserved = reservations.take(tag, { dir, replace });
    try {
      const isTaken = await shelf.has(tag);
      if (isTaken && !replace) {
        throw new ForkdError("snapshot_exists", `snapshot '${tag}' exists already`);
      }
      if (isTaken) await shelf.requireChildless(tag);
      reserved.state = isTaken ? "replacing" : "writing";
    } catch (error) {
      reservations.drop(reserved);
      throw error;
    }
    return this.#reservation(reserved);
  }

  #reservation(reserved: Reserved): Reservation {
    const { reservations } = this.#options;
    const staged: string[] = [];
    const stage = async (kind: StagingKind, parent: Snapshot | null): Promise<SnapshotStaging> => {
      const staging = await this.#stage(reserved, kind, parent);
      staged.push(staging.dir);
      return staging;
    };
    const discard = async (): Promise<void> => {
      for (const dir of staged.splice(0)) await removeTree(dir);
    };
    return {
      tag: reserved.tag,
      note: (facts) => {
        reserved.facts = { ...reserved.facts, ...facts };
      },
      describe: () => describeReserved(reserved),
      stageBase: () => stage("base", null),
      stageLink: (parent) => stage("link", parent),
      stageFlat: (parent) => stage("flat", parent),
      stageCompact: (parent) => stage("compact", parent),
      stageCopy: async () => {
        const staging = await this.#stageCopy(reserved);
        staged.push(staging.dir);
        return staging;
      },
      fail: async (reason) => {
        await discard();
        reserved.failure = toForkdError(reason).message;
        reserved.state = "failed";
      },
      release: async () => {
        await discard();
        reservations.drop(reserved);
      },
    };
  }

  async #stage(
    reserved: Reserved,
    kind: StagingKind,
    parent: Snapshot | null,
  ): Promise<SnapshotStaging> {
    const { paths, owner, pages } = this.#options;
    const { tag } = reserved;
    if (kind === "link" && parent !== null) {
      requireDepth(parent);
      reserved.parent = parent.tag;
    }
    const dir = await makeStagingDir(paths.snapshotsDir, owner, tag);
    const chain = parent?.chain ?? null;
    return {
      ...stagedFiles(dir, kind),
      publish: async (facts) => {
        const manifest = await sealStaged({ kind, dir, tag, facts, parent: chain, pages });
        await writeManifest(dir, manifest);
        await makeReadOnly(dir);
        if (manifest.parent !== null) await requireParent(this.#options.chains, manifest.parent);
        await this.#publish(reserved, dir);
        return this.#remember(tag);
      },
    };
  }

  async #stageCopy(reserved: Reserved): Promise<StagedCopy> {
    const { paths, owner, chains, pages } = this.#options;
    const { tag } = reserved;
    const dir = await makeStagingDir(paths.snapshotsDir, owner, tag);
    let verifying: Promise<Manifest> | undefined;
    const verify = (): Promise<Manifest> => {
      verifying ??= verifyCopy(pages, dir, tag);
      return verifying;
    };
    return {
      dir,
      verify,
      publish: async () => {
        const { parent } = await verify();
        await makeReadOnly(dir);
        if (parent !== null) await requireParent(chains, parent);
        await this.#publish(reserved, dir);
        return this.#remember(tag);
      },
      publishForeign: async () => {
        await makeReadOnly(dir);
        await this.#publish(reserved, dir);
      },
    };
  }

  /** Gives a complete directory its name. */
  async #publish(reserved: Reserved, dir: string): Promise<void> {
    const { paths, shelf, reservations } = this.#options;
    const { tag, state } = reserved;
    if (state === "replacing" && (await shelf.has(tag))) {
      await shelf.requireChildless(tag);
      await shelf.remove(tag);
    }
    await publishDir(dir, layout.snapshotDir(paths, tag));
    reservations.drop(reserved);
  }

  /** What was just hashed as it was written need not be hashed again. */
  async #remember(tag: SnapshotTag): Promise<SnapshotInfo> {
    const { chains, verified } = this.#options;
    const chain = await chains.resolve(tag);
    await verified.remember(chain.at(-1) ?? chain[0]);
    return describeSnapshot(chain);
  }
}

/** Who writes to what all children read does not do so by accident. */
async function makeReadOnly(dir: string): Promise<void> {
  for (const name of await readdir(dir)) await chmod(join(dir, name), publishedMode);
}

function requireDepth({ tag, chain }: Snapshot): void {
  if (chain.length <= limits.chainLinksMax) return;
  const message = `snapshot '${tag}' has ${chain.length - 1} links, no more are allowed`;
  throw new ForkdError("chain_too_long", message, {
    hint: `make a base of it: forkd snapshot-compact --from ${tag} --to NEW`,
  });
}

/** Links are worth nothing without exactly the parent that they were taken over. */
async function requireParent(
  chains: ChainReader,
  parent: { readonly tag: SnapshotTag; readonly manifest_sha256: string },
): Promise<void> {
  const stored = await chains.manifest(parent.tag).catch(() => undefined);
  if (stored?.sha256 === parent.manifest_sha256) return;
  const message = `the parent '${parent.tag}' was removed or replaced while its branch was written`;
  throw new ForkdError("snapshot_incomplete", message, {
    hint: "branch with mode full, which needs no parent afterwards",
  });
}
