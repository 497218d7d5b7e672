import { randomBytes } from "node:crypto";
import { mkdir, statfs } from "node:fs/promises";
import { join } from "node:path";
import { ForkdError, type SnapshotTag } from "@forkd/api";
import { kernelStagingDir } from "../store/kernels.ts";
import { rootfsStagingDir } from "../store/rootfs.ts";
import type { Reservation, StagedCopy } from "../store/snapshots.ts";
import { removeTree } from "../store/staging-dirs.ts";
import type { PackHost } from "./host.ts";

/** Space left alone on the store's file system, so that running sandboxes can go on. */
const freeBytesMin = 64 * 1024 * 1024;

/** A snapshot of a pack that is not on this host yet. */
export interface StagedSnapshot {
  readonly tag: SnapshotTag;
  readonly copy: StagedCopy;
}

/**
 * All that a pack brings before it is published, each part on the file system where it will be.
 * What is not published is gone when this is disposed of.
 */
export class UnpackStaging implements AsyncDisposable {
  readonly #host: PackHost;
  readonly #reservations: Reservation[] = [];
  readonly #dirs: string[] = [];
  #images: Promise<string> | undefined;
  #boots: Promise<string> | undefined;

  constructor(host: PackHost) {
    this.#host = host;
  }

  /** Takes a tag. Throws snapshot_exists, unless `replace`; snapshot_in_use. */
  async snapshot(tag: SnapshotTag, replace: boolean): Promise<StagedSnapshot> {
    const reservation = await this.#host.store.reserve(tag, { replace });
    this.#reservations.push(reservation);
    return { tag, copy: await reservation.stageCopy() };
  }

  /** The directory for root images, made when it is first asked for. */
  imagesDir(): Promise<string> {
    this.#images ??= this.#dir(rootfsStagingDir(this.#host.paths));
    return this.#images;
  }

  /** The same for kernels and initramfs images. */
  bootsDir(): Promise<string> {
    this.#boots ??= this.#dir(kernelStagingDir(this.#host.paths));
    return this.#boots;
  }

  /** Throws disk_full when `bytes` more would leave too little. */
  async requireRoom(bytes: number): Promise<void> {
    const { dataDir } = this.#host.paths;
    const { bavail, bsize } = await statfs(dataDir);
    if (bytes + freeBytesMin <= bavail * bsize) return;
    const mib = (count: number): number => Math.ceil(count / 1024 / 1024);
    const free = mib(bavail * bsize);
    const message = `the pack holds ${mib(bytes)} MiB, ${free} MiB are free in ${dataDir}`;
    throw new ForkdError("disk_full", message);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const reservation of this.#reservations) await reservation.release();
    for (const dir of this.#dirs) await removeTree(dir);
  }

  /** Named as those of image builds, so that the same sweep finds what a dead process left. */
  async #dir(parent: string): Promise<string> {
    const { pid, startTicks } = this.#host.owner;
    const dir = join(parent, `${pid}.${startTicks}-${randomBytes(6).toString("hex")}`);
    await mkdir(parent, { recursive: true, mode: 0o700 });
    await mkdir(dir, { mode: 0o700 });
    this.#dirs.push(dir);
    return dir;
  }
}
