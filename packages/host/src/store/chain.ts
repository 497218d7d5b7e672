import { join } from "node:path";
import { ForkdError, limits, type SnapshotTag } from "@forkd/api";
import type { DataPaths } from "../config/data-paths.ts";
import { fileIdentity, requireFile } from "./files.ts";
import { layout, scratchLayerFile, snapshotFiles } from "./layout.ts";
import { type Manifest, readManifest, type StoredManifest } from "./manifest.ts";
import type { Layer } from "./page-jobs.ts";

/** Manifests that stay parsed, newest use last. */
const manifestsKeptMax = 1024;

/** One snapshot of a chain, its files present and of their recorded sizes. Paths are absolute. */
export interface Link extends StoredManifest {
  readonly tag: SnapshotTag;
  readonly dir: string;
  readonly vmstateFile: string;
  readonly memoryFile: string;
  /** Null for a base of version 1. */
  readonly indexFile: string | null;
  /** See fileIdentity; null for a base of version 1. */
  readonly identity: LayerIdentity | null;
}

/** Which very files a layer was seen to be made of. */
export interface LayerIdentity {
  readonly vmstate: string;
  readonly memory: string;
  readonly index: string;
}

/** A file of a scratch disk: all of it, or what changed of the one below. */
export interface ScratchLayer {
  readonly file: string;
  readonly format: "raw" | "qcow2";
}

/** The scratch disk of a snapshot, its layers oldest first; none is ever written again. */
export interface ScratchImage {
  readonly sizeMib: number;
  readonly layers: readonly ScratchLayer[];
}

/** A base and its links, oldest first; never empty. */
export type Chain = readonly [base: Link, ...links: Link[]];

interface Parsed {
  readonly identity: string;
  readonly stored: StoredManifest;
  /** What its chain was when it was last followed. */
  ancestors: readonly SnapshotTag[];
}

type SeenLinks = Map<SnapshotTag, Promise<Link>>;

/** Reads manifests and follows them to their parents. */
export class ChainReader {
  readonly #paths: DataPaths;
  readonly #parsed = new Map<SnapshotTag, Parsed>();

  constructor(paths: DataPaths) {
    this.#paths = paths;
  }

  /** The manifest of a tag. Throws snapshot_not_found, snapshot_incomplete. */
  async manifest(tag: SnapshotTag): Promise<StoredManifest> {
    const dir = layout.snapshotDir(this.#paths, tag);
    const identity = await fileIdentity(join(dir, snapshotFiles.manifest));
    if (identity === undefined && (await fileIdentity(dir)) === undefined) throw notFound(tag);
    const known = this.#parsed.get(tag);
    this.#parsed.delete(tag);
    const isKnown = known !== undefined && known.identity === identity;
    const stored = isKnown ? known.stored : await readManifest(dir);
    if (identity !== undefined) {
      this.#parsed.set(tag, isKnown ? known : { identity, stored, ancestors: [] });
    }
    const [oldest] = this.#parsed.keys();
    if (oldest !== undefined && this.#parsed.size > manifestsKeptMax) this.#parsed.delete(oldest);
    return stored;
  }

  /** A reader of many chains at one instant, which looks at each of their links once. */
  atOnce(): (tag: SnapshotTag) => Promise<Chain> {
    const seen: SeenLinks = new Map();
    return (tag) => this.#follow(tag, seen);
  }

  /**
   * The whole chain of a tag. Throws snapshot_not_found for the tag itself, snapshot_incomplete for
   * whatever is missing, too long, circular, or not what the links were made from.
   */
  resolve(tag: SnapshotTag): Promise<Chain> {
    return this.#follow(tag, new Map());
  }

  async #follow(tag: SnapshotTag, seen: SeenLinks): Promise<Chain> {
    // What it was made of last time is looked at all at once; it is checked below as ever.
    for (const each of this.#parsed.get(tag)?.ancestors ?? []) void this.#look(each, seen);
    let head: [Link, ...Link[]] = [await this.#look(tag, seen)];
    for (let parent = head[0].manifest.parent; parent !== null; ) {
      const child = head[0];
      if (head.length > limits.chainLinksMax) {
        throw broken(tag, `has more than ${limits.chainLinksMax} links`);
      }
      if (head.some((link) => link.tag === parent?.tag)) {
        throw broken(tag, `is its own ancestor, by way of '${parent.tag}'`);
      }
      const link = await this.#parentOf(child, parent.tag, seen);
      if (link.sha256 !== parent.manifest_sha256) {
        throw broken(child.tag, `was made from another '${parent.tag}' than the one that is there`);
      }
      head = [link, ...head];
      parent = link.manifest.parent;
    }
    requireOneSize(head);
    const known = this.#parsed.get(tag);
    if (known !== undefined) known.ancestors = head.slice(0, -1).map((link) => link.tag);
    return head;
  }

  async #parentOf(child: Link, parent: SnapshotTag, seen: SeenLinks): Promise<Link> {
    try {
      return await this.#look(parent, seen);
    } catch (error) {
      if (!(error instanceof ForkdError)) throw error;
      if (error.code !== "snapshot_not_found") throw error;
      throw broken(child.tag, `needs its parent '${parent}', which is missing`);
    }
  }

  #look(tag: SnapshotTag, seen: SeenLinks): Promise<Link> {
    const known = seen.get(tag);
    if (known !== undefined) return known;
    const looking = this.#link(tag);
    seen.set(tag, looking);
    // It may be looked at in advance, and then for nothing.
    looking.catch(() => undefined);
    return looking;
  }

  async #link(tag: SnapshotTag): Promise<Link> {
    const stored = await this.manifest(tag);
    const dir = layout.snapshotDir(this.#paths, tag);
    const { files, parent } = stored.manifest;
    const { vmstate, memory, diff, index } = snapshotFiles;
    const vmstateFile = join(dir, vmstate);
    const memoryFile = join(dir, parent === null ? memory : diff);
    const indexFile = files.index === null ? null : join(dir, index);
    const [state, bytes, hashes] = await Promise.all([
      requireFile(vmstateFile, files.vmstate.size),
      requireFile(memoryFile, files.memory.size),
      indexFile === null ? null : requireFile(indexFile, files.index?.size),
      requireScratch(dir, stored.manifest),
    ]);
    const identity = hashes === null ? null : { vmstate: state, memory: bytes, index: hashes };
    return { ...stored, tag, dir, vmstateFile, memoryFile, indexFile, identity };
  }
}

/** Null for a snapshot without one. */
export function scratchOf({ dir, manifest }: Link): ScratchImage | null {
  if (manifest.scratch === null) return null;
  const { size_mib, layers } = manifest.scratch;
  const files = layers.map(({ format }, place) => {
    return { file: join(dir, scratchLayerFile(place)), format };
  });
  return { sizeMib: size_mib, layers: files };
}

async function requireScratch(dir: string, { scratch }: Manifest): Promise<void> {
  for (const [place, { size }] of (scratch?.layers ?? []).entries()) {
    await requireFile(join(dir, scratchLayerFile(place)), size);
  }
}

function requireOneSize(chain: Chain): void {
  const [base, ...links] = chain;
  const mib = base.manifest.machine.memory_mib;
  const other = links.find(({ manifest }) => manifest.machine.memory_mib !== mib);
  if (other !== undefined) throw broken(other.tag, `has not the ${mib} MiB of RAM of its base`);
}

/** The memory files of links, in their order, for the work on pages. */
export function layersOf(links: readonly Link[]): Layer[] {
  return links.map(({ memoryFile, indexFile }) => ({
    file: memoryFile,
    extents: indexFile === null ? "scan" : { index: indexFile },
  }));
}

export function notFound(tag: SnapshotTag): ForkdError {
  return new ForkdError("snapshot_not_found", `snapshot '${tag}' not found`);
}

function broken(tag: SnapshotTag, what: string): ForkdError {
  return new ForkdError("snapshot_incomplete", `snapshot '${tag}' ${what}`, {
    hint: `put the parent back, or remove what is left with: forkd rmi --cascade ${tag}`,
  });
}
