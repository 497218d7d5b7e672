import { lstat, readdir, rename } from "node:fs/promises";
import { ForkdError, type SnapshotTag, snapshotTagSchema } from "@forkd/api";
import type { DataPaths } from "../config/data-paths.ts";
import { isErrno } from "../lib/atomic.ts";
import type { ProcessIdentity } from "../linux/proc.ts";
import { type ChainReader, notFound } from "./chain.ts";
import { type Family, familyOf, type Member } from "./family.ts";
import { undefinedIfMissing } from "./files.ts";
import { layout } from "./layout.ts";
import type { OverlayCache } from "./overlays.ts";
import type { Reservations } from "./reservations.ts";
import { makeStagingDir, removeTree } from "./staging-dirs.ts";
import type { VerifiedLayers } from "./verified.ts";

export interface ShelfOptions {
  readonly paths: DataPaths;
  readonly owner: ProcessIdentity;
  readonly chains: ChainReader;
  readonly verified: VerifiedLayers;
  readonly overlays: OverlayCache;
  readonly reservations: Reservations;
}

/** The snapshots' directories: which there are, who comes from whom, and how one goes. */
export class Shelf {
  readonly #options: ShelfOptions;

  constructor(options: ShelfOptions) {
    this.#options = options;
  }

  /** Whether the name is taken on disk, by whatever. */
  async has(tag: SnapshotTag): Promise<boolean> {
    // Not what it points to: a dangling link takes the name too.
    const dir = layout.snapshotDir(this.#options.paths, tag);
    return (await lstat(dir).catch(undefinedIfMissing)) !== undefined;
  }

  async tags(): Promise<SnapshotTag[]> {
    const { snapshotsDir } = this.#options.paths;
    const names = (await readdir(snapshotsDir).catch(undefinedIfMissing)) ?? [];
    const tags = names.map((name) => snapshotTagSchema.safeParse(name));
    return tags.filter((tag) => tag.success).map((tag) => tag.data);
  }

  /** Who was made from whom, those that are being written too. */
  async family(): Promise<Family> {
    const { reservations } = this.#options;
    const writing = reservations.links();
    const members = await Promise.all((await this.tags()).map((tag) => this.#member(tag)));
    const readable = members.filter((member) => member !== undefined);
    return familyOf(readable, writing);
  }

  /** Throws snapshot_in_use that names the children and the ways out. */
  async requireChildless(tag: SnapshotTag): Promise<void> {
    const children = (await this.family()).childrenOf(tag);
    if (children.length === 0) return;
    const message =
      `snapshot '${tag}' has children: ${children.join(", ")}; ` +
      "remove them too with cascade=true, or leave them without a parent with force=true";
    throw new ForkdError("snapshot_in_use", message, {
      hint: `forkd rmi --cascade ${tag} removes them all, --force only this one`,
    });
  }

  /** Frees the name at once, the bytes go right after. Throws snapshot_not_found. */
  async remove(tag: SnapshotTag): Promise<void> {
    const { paths, owner, chains, verified, overlays } = this.#options;
    const stored = await chains.manifest(tag).catch(() => undefined);
    const doomed = await makeStagingDir(paths.snapshotsDir, owner, `removed-${tag}`);
    try {
      await rename(layout.snapshotDir(paths, tag), doomed);
    } catch (error) {
      if (isErrno(error, "ENOENT")) throw notFound(tag);
      throw error;
    } finally {
      await removeTree(doomed);
    }
    if (stored === undefined) return;
    await verified.forget(stored.sha256);
    await overlays.forget(stored.sha256);
  }

  async #member(tag: SnapshotTag): Promise<Member | undefined> {
    const stored = await this.#options.chains.manifest(tag).catch(() => undefined);
    return stored === undefined ? undefined : { tag, ...stored };
  }
}
