import { mkdir, readdir, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { ForkdError, type SnapshotTag } from "@forkd/api";
import { z } from "zod";
import { replaceFile } from "../lib/atomic.ts";
import type { LayerIdentity, Link } from "./chain.ts";
import { undefinedIfMissing } from "./files.ts";
import { snapshotFiles } from "./layout.ts";
import { type Manifest, memoryBytesOf, readManifest } from "./manifest.ts";
import type { PageWorkers } from "./pages.ts";

/** Layers that are remembered, in memory and on disk; the oldest go. */
const layersMax = 4096;
const recordBytesMax = 16 * 1024;

const recordSchema = z.object({
  format: z.literal(1),
  vmstate: z.string(),
  memory: z.string(),
  index: z.string(),
  /** What was found wrong with exactly these files, or null. */
  damage: z.string().nullable(),
});
type Verdict = z.infer<typeof recordSchema>;

/**
 * Which layers are what their manifests say, by the identity of their files: bytes are hashed when
 * they are written, and again only when a file is not the one that it was.
 */
export class VerifiedLayers {
  readonly #dir: string;
  readonly #pages: PageWorkers;
  readonly #known = new Map<string, Verdict>();
  readonly #running = new Map<string, Promise<void>>();

  constructor(dir: string, pages: PageWorkers) {
    this.#dir = dir;
    this.#pages = pages;
  }

  /** Remembers that these files are right: they were hashed as they were written. */
  async remember(link: Link): Promise<void> {
    const { identity, sha256 } = link;
    if (identity !== null) await this.#write(sha256, { ...identity, damage: null });
  }

  /**
   * Throws snapshot_corrupt that names the file, the chunk and the fix when the bytes of a layer
   * are not those that its manifest stands for. A base of version 1 has no hashes to compare.
   */
  async require(link: Link): Promise<void> {
    if (link.indexFile === null) return;
    const running = this.#running.get(link.sha256);
    if (running !== undefined) return running;
    const checking = this.#check(link).finally(() => this.#running.delete(link.sha256));
    this.#running.set(link.sha256, checking);
    return checking;
  }

  /** {@link require} that reads all bytes, whatever is remembered of them; what it finds is. */
  async recheck(link: Link): Promise<void> {
    const { identity, sha256 } = link;
    if (identity === null) return;
    const damage = await this.#examine(link);
    await this.#write(sha256, { ...identity, damage });
    if (damage !== null) throw corrupt(link, damage);
  }

  /** What an earlier check found wrong with the files as they are, without a new one. */
  async knownDamage({ sha256, identity }: Link): Promise<string | undefined> {
    if (identity === null) return undefined;
    return (await this.#verdict(sha256, identity))?.damage ?? undefined;
  }

  async forget(manifestSha256: string): Promise<void> {
    this.#known.delete(manifestSha256);
    await rm(this.#path(manifestSha256), { force: true });
  }

  async #check(link: Link): Promise<void> {
    const { identity } = link;
    if (identity === null) return;
    const verdict = await this.#verdict(link.sha256, identity);
    const damage = verdict === undefined ? await this.#examine(link) : verdict.damage;
    if (verdict === undefined) await this.#write(link.sha256, { ...identity, damage });
    if (damage !== null) throw corrupt(link, damage);
  }

  async #examine(link: Link): Promise<string | null> {
    try {
      await verifyLayer(this.#pages, link);
      return null;
    } catch (error) {
      if (error instanceof ForkdError && error.code === "snapshot_corrupt") return error.message;
      throw error;
    }
  }

  /** What is remembered of exactly these files. */
  async #verdict(sha256: string, identity: LayerIdentity): Promise<Verdict | undefined> {
    const known = this.#known.get(sha256);
    if (known !== undefined && isSame(known, identity)) return known;
    const stored = await this.#read(sha256);
    if (stored === undefined || !isSame(stored, identity)) return undefined;
    this.#keep(sha256, stored);
    return stored;
  }

  #keep(sha256: string, verdict: Verdict): void {
    this.#known.delete(sha256);
    this.#known.set(sha256, verdict);
    const [oldest] = this.#known.keys();
    if (oldest !== undefined && this.#known.size > layersMax) this.#known.delete(oldest);
  }

  #path(sha256: string): string {
    return join(this.#dir, `${sha256}.json`);
  }

  async #read(sha256: string): Promise<Verdict | undefined> {
    const text = await readFile(this.#path(sha256), "utf8").catch(undefinedIfMissing);
    if (text === undefined || text.length > recordBytesMax) return undefined;
    try {
      return recordSchema.parse(JSON.parse(text));
    } catch {
      // Without a record that can be read the bytes are hashed, which is always right.
      return undefined;
    }
  }

  async #write(sha256: string, facts: Omit<Verdict, "format">): Promise<void> {
    const verdict: Verdict = { format: 1, ...facts };
    this.#keep(sha256, verdict);
    await mkdir(this.#dir, { recursive: true, mode: 0o700 });
    await replaceFile(this.#path(sha256), JSON.stringify(verdict));
    await this.#prune();
  }

  async #prune(): Promise<void> {
    const names = await readdir(this.#dir);
    if (names.length <= layersMax) return;
    const aged = await Promise.all(
      names.map(async (name) => {
        const stats = await stat(join(this.#dir, name)).catch(undefinedIfMissing);
        return { name, mtimeMs: stats?.mtimeMs ?? 0 };
      }),
    );
    const surplus = aged.sort((a, b) => a.mtimeMs - b.mtimeMs).slice(0, names.length - layersMax);
    for (const { name } of surplus) await rm(join(this.#dir, name), { force: true });
  }
}

type LayerFiles = Pick<Link, "manifest" | "memoryFile" | "indexFile" | "vmstateFile">;

/** Hashes memory and state. Throws snapshot_corrupt; nothing for a base without hashes. */
async function verifyLayer(pages: PageWorkers, layer: LayerFiles): Promise<void> {
  const { manifest, memoryFile, indexFile, vmstateFile } = layer;
  const { index, vmstate } = manifest.files;
  if (indexFile === null || index === null) return;
  await pages.run("verify", {
    file: memoryFile,
    index: indexFile,
    indexSha256: index.sha256,
    memoryBytes: memoryBytesOf(manifest),
    isBase: manifest.parent === null,
  });
  if ((await pages.run("hash", { file: vmstateFile })) === vmstate.sha256) return;
  throw new ForkdError("snapshot_corrupt", `${vmstateFile} is not what was written`);
}

/**
 * Checks all of a snapshot that lies in a directory of its own, not yet under its name. Throws
 * snapshot_incomplete for one that is another's or has no hashes, snapshot_corrupt.
 */
export async function verifyCopy(
  pages: PageWorkers,
  dir: string,
  tag: SnapshotTag,
): Promise<Manifest> {
  const { manifest } = await readManifest(dir);
  if (manifest.tag !== tag || manifest.files.index === null) {
    const message = `the snapshot '${manifest.tag}' cannot be taken over as '${tag}'`;
    throw new ForkdError("snapshot_incomplete", message);
  }
  const memory = manifest.parent === null ? snapshotFiles.memory : snapshotFiles.diff;
  await verifyLayer(pages, {
    manifest,
    memoryFile: join(dir, memory),
    indexFile: join(dir, snapshotFiles.index),
    vmstateFile: join(dir, snapshotFiles.vmstate),
  });
  return manifest;
}

function isSame(a: LayerIdentity, b: LayerIdentity): boolean {
  return a.vmstate === b.vmstate && a.memory === b.memory && a.index === b.index;
}

function corrupt({ tag }: Link, damage: string): ForkdError {
  return new ForkdError("snapshot_corrupt", damage, {
    hint: `restore the file from a backup, or remove it: forkd rmi --cascade ${tag}`,
  });
}
