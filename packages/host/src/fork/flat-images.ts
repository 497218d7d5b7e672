import { createHash } from "node:crypto";
import { mkdir, readdir, rename, rm, stat, utimes } from "node:fs/promises";
import { join } from "node:path";
import type { MemoryImage } from "../engine/engine.ts";
import { isErrno, stagingName } from "../lib/atomic.ts";
import { run } from "../lib/exec.ts";
import { nativeTool } from "../lib/native.ts";

/** A whole RAM to a slow disk, and the pages of a long chain. */
const buildTimeoutMs = 10 * 60_000;
/** Files of one data directory; each is as large as a guest's RAM, less its holes. */
const imagesMax = 32;
/** One that was asked for within this time may be about to be mapped: it stays. */
const graceMs = 10 * 60_000;

/**
 * Images of chains as one whole file each, for engines that can map no overlay. Each is made once,
 * sharing the base's blocks where the file system can, and used by all children.
 */
export class FlatImages {
  readonly #dir: string;
  readonly #building = new Map<string, Promise<string>>();

  /** `dir` is made when it is needed, on the file system of the snapshots. */
  constructor(dir: string) {
    this.#dir = dir;
  }

  /** Path of the whole file. Throws disk_full, tool_failed. */
  async flatten(image: MemoryImage): Promise<string> {
    const { base, overlay } = image;
    if (overlay === null) return base;
    const name = await nameOf([base, overlay.file, overlay.extents]);
    const known = this.#building.get(name);
    if (known !== undefined) return await known;
    const building = this.#find(name, image).finally(() => this.#building.delete(name));
    this.#building.set(name, building);
    return await building;
  }

  async #find(name: string, image: MemoryImage): Promise<string> {
    const path = join(this.#dir, name);
    const now = new Date();
    try {
      await utimes(path, now, now);
      return path;
    } catch (error) {
      if (!isErrno(error, "ENOENT")) throw error;
    }
    await mkdir(this.#dir, { recursive: true, mode: 0o700 });
    await this.#makeRoom();
    await build(image, path);
    return path;
  }

  /** A file that is mapped lives on without its name. */
  async #makeRoom(): Promise<void> {
    const names = (await readdir(this.#dir)).filter((name) => name.endsWith(".img"));
    const aged = await Promise.all(
      names.map(async (name) => {
        const path = join(this.#dir, name);
        return { path, usedMs: (await stat(path)).mtimeMs };
      }),
    );
    const old = aged
      .filter(({ usedMs }) => usedMs < Date.now() - graceMs)
      .sort((a, b) => a.usedMs - b.usedMs);
    const surplus = Math.max(0, names.length + 1 - imagesMax);
    await Promise.all(old.slice(0, surplus).map(({ path }) => rm(path, { force: true })));
  }
}

/** By what the files are now: one that is replaced makes another image. */
async function nameOf(paths: readonly string[]): Promise<string> {
  const hash = createHash("sha256");
  for (const path of paths) {
    const { dev, ino, size, mtimeNs } = await stat(path, { bigint: true });
    hash.update(`${dev} ${ino} ${size} ${mtimeNs}\n`);
  }
  return `${hash.digest("hex").slice(0, 32)}.img`;
}

/** Another process may be making the same: whoever is last wins, both are right. */
async function build({ base, overlay }: MemoryImage, path: string): Promise<void> {
  const staging = stagingName(path);
  try {
    const copy = ["cp", "--reflink=auto", "--sparse=auto", "--", base, staging];
    await run(copy, { timeoutMs: buildTimeoutMs });
    if (overlay !== null) {
      const lay = [nativeTool("forkd-sparse"), "apply", overlay.file, overlay.extents, staging];
      await run(lay, { timeoutMs: buildTimeoutMs });
    }
    await rename(staging, path);
  } catch (error) {
    await rm(staging, { force: true });
    throw error;
  }
}
