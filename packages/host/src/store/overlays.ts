import { mkdir, readdir, rename, stat, statfs, utimes } from "node:fs/promises";
import { join } from "node:path";
import { toForkdError } from "@forkd/api";
import type { DataPaths } from "../config/data-paths.ts";
import { isErrno } from "../lib/atomic.ts";
import type { ProcessIdentity } from "../linux/proc.ts";
import { acquireBuildLock } from "./build-lock.ts";
import { type Chain, layersOf } from "./chain.ts";
import type { RunBounds } from "./extents.ts";
import { measure, statOrUndefined, undefinedIfMissing } from "./files.ts";
import { claimHotDir, findStaleHotDirs } from "./hot-dir.ts";
import { layout } from "./layout.ts";
import { memoryBytesOf } from "./manifest.ts";
import type { PageWorkers } from "./pages.ts";
import { makeStagingDir, removeTree, sweepStagingDirs } from "./staging-dirs.ts";

/** What lies over a base; the same shape as the engine's. */
export interface MemoryOverlay {
  readonly file: string;
  readonly extents: string;
}

/** A RAM as files: all of the base, and what differs from it. */
export interface MemoryImage {
  readonly base: string;
  readonly overlay: MemoryOverlay | null;
}

export interface OverlayLimits extends RunBounds {
  /** Bytes of all images of one data directory in memory, and on disk. */
  readonly hotBytesMax: number;
  readonly coldBytesMax: number;
  /** An image that was asked for within this time may be about to be mapped: it stays. */
  readonly graceMs: number;
}

export const overlayLimits: OverlayLimits = {
  // Measured: a thousand single pages add a tenth to a spawn, eight thousand three quarters.
  runsWanted: 1024,
  // Half of what VMMs accept, and an eighth of the kernel's usual bound on mappings.
  runsMax: 8192,
  hotBytesMax: 4 * 1024 ** 3,
  coldBytesMax: 32 * 1024 ** 3,
  // Longer than the slowest spawn takes from here to its VMM.
  graceMs: 10 * 60_000,
};

/** Of the memory that is free, images take at most one part in so many. */
const hotShare = 4;
/** Longer than the largest image takes from the slowest disk. */
const buildTimeoutMs = 10 * 60_000;
const lockSuffix = ".lock";

export interface OverlayOptions {
  readonly paths: DataPaths;
  readonly owner: ProcessIdentity;
  readonly pages: PageWorkers;
  readonly limits?: Partial<OverlayLimits>;
}

/** The images of chains that VMMs map: made once, shared, bounded, the least used go first. */
export class OverlayCache {
  readonly #paths: DataPaths;
  readonly #owner: ProcessIdentity;
  readonly #pages: PageWorkers;
  readonly #limits: OverlayLimits;
  readonly #coldDir: string;
  readonly #building = new Map<string, Promise<MemoryOverlay>>();

  constructor({ paths, owner, pages, limits = {} }: OverlayOptions) {
    this.#paths = paths;
    this.#owner = owner;
    this.#pages = pages;
    this.#limits = { ...overlayLimits, ...limits };
    this.#coldDir = join(layout.overlaysDir(paths), owner.bootId);
  }

  /** The memory of a chain that has been verified. Throws disk_full, snapshot_corrupt, busy. */
  async image(chain: Chain): Promise<MemoryImage> {
    const [base, ...links] = chain;
    if (links.length === 0) return { base: base.memoryFile, overlay: null };
    return { base: base.memoryFile, overlay: await this.#ensure(chain) };
  }

  /** Removes the images of a snapshot that is gone; VMs that map them keep their bytes. */
  async forget(manifestSha256: string): Promise<void> {
    for (const root of [this.#paths.hotDir, this.#coldDir]) {
      await removeTree(join(root, manifestSha256));
    }
  }

  /**
   * Removes what is of no use any more: images of data directories that are gone, and those that a
   * crash of the host may have left without their bytes, because they were never synced.
   */
  async sweep(): Promise<void> {
    const root = layout.overlaysDir(this.#paths);
    for (const name of (await readdir(root).catch(undefinedIfMissing)) ?? []) {
      if (name !== this.#owner.bootId) await removeTree(join(root, name));
    }
    for (const dir of await findStaleHotDirs(this.#paths)) await removeTree(dir);
    await sweepStagingDirs(this.#coldDir);
    await sweepStagingDirs(this.#paths.hotDir);
  }

  async #ensure(chain: Chain): Promise<MemoryOverlay> {
    const key = keyOf(chain);
    const running = this.#building.get(key);
    if (running !== undefined) return running;
    const made = this.#findOrBuild(chain).finally(() => this.#building.delete(key));
    this.#building.set(key, made);
    return made;
  }

  async #findOrBuild(chain: Chain): Promise<MemoryOverlay> {
    const found = await this.#find(chain);
    if (found !== undefined) return found;
    await mkdir(this.#coldDir, { recursive: true, mode: 0o700 });
    const path = join(this.#coldDir, `${keyOf(chain)}${lockSuffix}`);
    const lock = await acquireBuildLock(path, this.#owner, buildTimeoutMs);
    try {
      return (await this.#find(chain)) ?? (await this.#build(chain));
    } finally {
      await lock.release();
    }
  }

  /** An image that is there, marked as used now. */
  async #find(chain: Chain): Promise<MemoryOverlay | undefined> {
    for (const root of [this.#paths.hotDir, this.#coldDir]) {
      const dir = join(root, keyOf(chain));
      const overlay = await this.#openImage(dir, chain);
      if (overlay !== undefined && (await touch(dir))) return overlay;
    }
    return undefined;
  }

  async #openImage(dir: string, chain: Chain): Promise<MemoryOverlay | undefined> {
    const [extents, image] = await Promise.all([
      statOrUndefined(join(dir, "extents")),
      statOrUndefined(join(dir, "memory")),
    ]);
    if (extents === undefined) return undefined;
    const file = image === undefined ? headOf(chain).memoryFile : join(dir, "memory");
    return { file, extents: join(dir, "extents") };
  }

  async #build(chain: Chain): Promise<MemoryOverlay> {
    const bytes = chain.slice(1).reduce((sum, { manifest }) => {
      return sum + manifest.files.memory.data_bytes;
    }, 0);
    if (await this.#fitsInMemory(bytes)) {
      try {
        return await this.#compose(chain, this.#paths.hotDir);
      } catch (error) {
        // Others use that memory too; the disk has more.
        if (toForkdError(error).code !== "disk_full") throw error;
      }
    }
    // Without room it is made all the same: what is left is in use, so no more than VMs need.
    await this.#makeRoom(this.#coldDir, this.#limits.coldBytesMax - bytes);
    return this.#compose(chain, this.#coldDir);
  }

  async #fitsInMemory(bytes: number): Promise<boolean> {
    const { hotDir } = this.#paths;
    if (!(await claimHotDir(this.#paths))) return false;
    const { bavail, bsize } = await statfs(hotDir);
    const free = Math.min(bavail * bsize, process.availableMemory());
    if (bytes > free / hotShare) return false;
    return this.#makeRoom(hotDir, this.#limits.hotBytesMax - bytes);
  }

  async #compose(chain: Chain, root: string): Promise<MemoryOverlay> {
    const [base, ...links] = chain;
    const staging = await makeStagingDir(root, this.#owner, "image");
    try {
      await this.#pages.run("compose", {
        base: base.memoryFile,
        links: layersOf(links),
        memoryBytes: memoryBytesOf(base.manifest),
        bounds: this.#limits,
        extentsFile: join(staging, "extents"),
        imageFile: join(staging, "memory"),
      });
      const dir = join(root, keyOf(chain));
      await rename(staging, dir).catch((error: unknown) => {
        // Another process was faster, with the same bytes.
        if (!isErrno(error, "ENOTEMPTY") && !isErrno(error, "EEXIST")) throw error;
      });
      const overlay = await this.#openImage(dir, chain);
      if (overlay !== undefined) return overlay;
      throw new Error(`${dir} vanished while it was made`);
    } finally {
      await removeTree(staging);
    }
  }

  /**
   * Removes images that nobody uses, the longest unused first, until those that are left take at
   * most `bytesMax`. A VM that maps an image keeps its bytes until it ends, so removing that one
   * would free nothing: it stays. Says whether there is room now.
   */
  async #makeRoom(root: string, bytesMax: number): Promise<boolean> {
    const images = await listImages(root);
    let bytes = images.reduce((sum, image) => sum + image.bytes, 0);
    if (bytes <= bytesMax) return true;
    const mapped = new Set(await this.#pages.run("mapped", { dirs: [root] }));
    const newest = Date.now() - this.#limits.graceMs;
    for (const image of images.sort((a, b) => a.usedMs - b.usedMs)) {
      const isUsed = image.usedMs > newest || mapped.has(join(image.dir, "memory"));
      if (bytes <= bytesMax || isUsed) continue;
      // Another process may have asked for it since it was listed.
      if ((await describeImage(image.dir))?.usedMs !== image.usedMs) continue;
      await removeTree(image.dir);
      bytes -= image.bytes;
    }
    return bytes <= bytesMax;
  }
}

/** Marks an image as used now. False when it was removed meanwhile. */
async function touch(dir: string): Promise<boolean> {
  const now = new Date();
  const touched = await utimes(dir, now, now).then(() => true, undefinedIfMissing);
  return touched ?? false;
}

interface CachedImage {
  readonly dir: string;
  readonly bytes: number;
  readonly usedMs: number;
}

async function listImages(root: string): Promise<CachedImage[]> {
  const names = (await readdir(root).catch(undefinedIfMissing)) ?? [];
  const keys = names.filter((name) => /^[0-9a-f]{64}$/.test(name));
  const images = await Promise.all(keys.map((key) => describeImage(join(root, key))));
  return images.filter((image) => image !== undefined);
}

async function describeImage(dir: string): Promise<CachedImage | undefined> {
  try {
    const { mtimeMs } = await stat(dir);
    const table = await measure(join(dir, "extents"));
    const image = await measure(join(dir, "memory")).catch(undefinedIfMissing);
    const bytes = table.physical_bytes + (image?.physical_bytes ?? 0);
    return { dir, bytes, usedMs: mtimeMs };
  } catch (error) {
    return undefinedIfMissing(error);
  }
}

const headOf = (chain: Chain) => chain.at(-1) ?? chain[0];

/** The head's manifest names its parent's by hash, so it stands for the whole chain. */
const keyOf = (chain: Chain): string => headOf(chain).sha256;
