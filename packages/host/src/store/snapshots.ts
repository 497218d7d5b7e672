import type { Stats } from "node:fs";
import { lstat, mkdir, mkdtemp, readdir, rename, rm, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { ForkdError, type SnapshotInfo, type SnapshotTag, snapshotTagSchema } from "@forkd/api";
import type { DataPaths } from "../config/data-paths.ts";
import { isErrno, publishDir } from "../lib/atomic.ts";
import { findProcess, type ProcessIdentity } from "../linux/proc.ts";
import { layout, snapshotFiles } from "./layout.ts";
import { type Manifest, readManifest, writeManifest } from "./manifest.ts";

/** Directories that begin so are being written, or were when a process died. */
const stagingPrefix = ".staging-";
/** `.staging-<pid>.<start ticks>-<what>`: whose it is, so that a sweep can tell a leftover. */
const stagingPattern = /^\.staging-(\d{1,10})\.(\d{1,20})-/;
const blockBytes = 512;

/** A snapshot that can be forked: manifest read, every file present with its recorded size. */
export interface Snapshot {
  readonly tag: SnapshotTag;
  readonly dir: string;
  readonly manifest: Manifest;
  readonly vmstateFile: string;
  readonly memoryFile: string;
  readonly rootImage: string;
}

/** A directory being filled; nobody sees it before `publish`. */
export interface SnapshotStaging {
  readonly dir: string;
  readonly vmstateFile: string;
  readonly memoryFile: string;
  /**
   * Adds the manifest and gives the directory its name. An older snapshot of that name is removed
   * directly before if `replace` is set; else throws snapshot_exists.
   */
  publish(manifest: Manifest, options: { readonly replace: boolean }): Promise<void>;
  discard(): Promise<void>;
}

/** Snapshots on disk: the directory is the index. */
export class SnapshotStore {
  readonly #paths: DataPaths;
  readonly #owner: ProcessIdentity;

  /** `owner` is this process: its staging directories carry its name. */
  constructor(paths: DataPaths, owner: ProcessIdentity) {
    this.#paths = paths;
    this.#owner = owner;
  }

  /** Whether the tag's name is taken, by whatever. */
  async has(tag: SnapshotTag): Promise<boolean> {
    // Not what it points to: a dangling link takes the name too.
    return (await lstatOrUndefined(layout.snapshotDir(this.#paths, tag))) !== undefined;
  }

  async stage(tag: SnapshotTag): Promise<SnapshotStaging> {
    await mkdir(this.#paths.snapshotsDir, { recursive: true, mode: 0o700 });
    const dir = await mkdtemp(this.#stagingPath(tag));
    return {
      dir,
      vmstateFile: join(dir, snapshotFiles.vmstate),
      memoryFile: join(dir, snapshotFiles.memory),
      publish: async (manifest, { replace }) => {
        await writeManifest(dir, manifest);
        if (replace && (await this.has(tag))) await this.remove(tag);
        await publishDir(dir, layout.snapshotDir(this.#paths, tag));
      },
      discard: () => rm(dir, { recursive: true, force: true }),
    };
  }

  /** Throws snapshot_not_found, or snapshot_incomplete that names the file and what is wrong. */
  async open(tag: SnapshotTag): Promise<Snapshot> {
    const dir = layout.snapshotDir(this.#paths, tag);
    if ((await statOrUndefined(dir)) === undefined) throw notFound(tag);
    const manifest = await readManifest(dir);
    const snapshot: Snapshot = {
      tag,
      dir,
      manifest,
      vmstateFile: join(dir, snapshotFiles.vmstate),
      memoryFile: join(dir, snapshotFiles.memory),
      rootImage: layout.rootImage(this.#paths, manifest.rootfs.sha256),
    };
    await requireSize(snapshot.vmstateFile, manifest.files.vmstate.size);
    await requireSize(snapshot.memoryFile, manifest.files.memory.size);
    await requireSize(snapshot.rootImage, undefined);
    return snapshot;
  }

  /** Every tag once, those that cannot be forked with status failed and the reason. */
  async list(): Promise<SnapshotInfo[]> {
    const tags = (await this.#names()).map((name) => snapshotTagSchema.safeParse(name));
    const infos = tags.filter((tag) => tag.success).map((tag) => this.#describe(tag.data));
    return (await Promise.all(infos)).filter((info) => info !== undefined);
  }

  /** Throws snapshot_not_found. The name is free at once, the bytes go right after. */
  async remove(tag: SnapshotTag): Promise<void> {
    const dir = layout.snapshotDir(this.#paths, tag);
    if ((await statOrUndefined(dir)) === undefined) throw notFound(tag);
    const doomed = await mkdtemp(this.#stagingPath(`removed-${tag}`));
    try {
      await rename(dir, doomed);
    } catch (error) {
      await rm(doomed, { recursive: true, force: true });
      if (isErrno(error, "ENOENT")) throw notFound(tag);
      throw error;
    }
    await rm(doomed, { recursive: true, force: true });
  }

  /** Removes what processes that are gone were writing or removing. */
  async sweep(): Promise<void> {
    for (const name of await this.#names()) {
      const [, pid, ticks] = stagingPattern.exec(name) ?? [];
      if (pid === undefined || ticks === undefined) continue;
      if (findProcess(Number(pid))?.startTicks === Number(ticks)) continue;
      await rm(join(this.#paths.snapshotsDir, name), { recursive: true, force: true });
    }
  }

  #stagingPath(what: string): string {
    const { pid, startTicks } = this.#owner;
    return join(this.#paths.snapshotsDir, `${stagingPrefix}${pid}.${startTicks}-${what}-`);
  }

  async #names(): Promise<string[]> {
    return readdir(this.#paths.snapshotsDir).catch((error: unknown) => {
      if (isErrno(error, "ENOENT")) return [];
      throw error;
    });
  }

  async #describe(tag: SnapshotTag): Promise<SnapshotInfo | undefined> {
    const dir = layout.snapshotDir(this.#paths, tag);
    try {
      return describe(await this.open(tag));
    } catch (error) {
      if (!(error instanceof ForkdError)) throw error;
      const stats = await statOrUndefined(dir);
      if (stats === undefined) return undefined;
      const created = Math.floor(stats.mtimeMs / 1000);
      return {
        tag,
        dir,
        created_at_unix: created,
        status: "failed",
        bootable: false,
        warning: error.message,
      };
    }
  }
}

function describe({ tag, dir, manifest }: Snapshot): SnapshotInfo {
  return {
    tag,
    dir,
    created_at_unix: manifest.created_at_unix,
    status: "ready",
    bootable: true,
    engine: manifest.engine.name,
    isolation: manifest.engine.isolation,
    memory_mib: manifest.machine.memory_mib,
    memory_physical_bytes: manifest.files.memory.physical_bytes,
    image: manifest.rootfs.ref,
  };
}

/** Size and allocated bytes of a file that was just written. */
export async function measure(path: string): Promise<{ size: number; physical_bytes: number }> {
  const stats = await stat(path);
  return { size: stats.size, physical_bytes: stats.blocks * blockBytes };
}

function statOrUndefined(path: string): Promise<Stats | undefined> {
  return stat(path).catch(undefinedIfMissing);
}

function lstatOrUndefined(path: string): Promise<Stats | undefined> {
  return lstat(path).catch(undefinedIfMissing);
}

function undefinedIfMissing(error: unknown): undefined {
  if (isErrno(error, "ENOENT")) return undefined;
  throw error;
}

async function requireSize(path: string, size: number | undefined): Promise<void> {
  const stats = await statOrUndefined(path);
  if (stats === undefined || !stats.isFile()) {
    throw new ForkdError("snapshot_incomplete", `${basename(path)} is missing: ${path}`);
  }
  if (size !== undefined && stats.size !== size) {
    const message = `${path} has ${stats.size} bytes, the manifest says ${size}`;
    throw new ForkdError("snapshot_incomplete", message);
  }
}

function notFound(tag: SnapshotTag): ForkdError {
  return new ForkdError("snapshot_not_found", `snapshot '${tag}' not found`);
}
