import { createHash } from "node:crypto";
import { mkdir, readdir, rm, stat, truncate } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { isErrno, replaceFile } from "../lib/atomic.ts";
import { readRecord } from "./record-file.ts";
import type { ReadFrom } from "./remote.ts";

/** Downloads that stopped and may go on; the ones that were not touched for longest go first. */
const partialsMax = 8;
const partialAgeMaxMs = 7 * 24 * 60 * 60 * 1000;
const namePattern = /^[0-9a-f]{64}\.(part|json|lock)$/;

const recordSchema = z.object({
  format: z.literal(1),
  /** Of the object that the bytes are of. */
  version: z.string().nullable(),
});

/**
 * What has come of one object, kept from one run to the next: `HASH.part`, and beside it
 * `HASH.json`, which says of which version the bytes are. No list of snapshots looks there.
 */
export class PartialFile {
  readonly file: string;
  readonly lockFile: string;
  readonly #record: string;

  /** `of` is what names the object for good, without what changes from one run to the next. */
  constructor(dir: string, of: string) {
    const base = join(dir, createHash("sha256").update(of).digest("hex"));
    this.file = `${base}.part`;
    this.lockFile = `${base}.lock`;
    this.#record = `${base}.json`;
  }

  /**
   * Where to go on. Bytes of no known version count only when what they hash to in the end is
   * known (`isHashKnown`).
   */
  async resumePoint(isHashKnown: boolean): Promise<ReadFrom> {
    const size = await sizeOf(this.file);
    const record = size === 0 ? undefined : await readRecord(this.#record, recordSchema);
    if (record === undefined || (record.version === null && !isHashKnown)) {
      return { offset: 0, version: null };
    }
    return { offset: size, version: record.version };
  }

  /** Keeps the first `bytes`, and says that they and what follows are of `version`. */
  async begin(bytes: number, version: string | null): Promise<void> {
    await truncate(this.file, bytes).catch((error: unknown) => {
      if (!isErrno(error, "ENOENT")) throw error;
    });
    await replaceFile(this.#record, JSON.stringify({ format: 1, version }));
  }

  async discard(): Promise<void> {
    await rm(this.#record, { force: true });
    await rm(this.file, { force: true });
  }
}

async function sizeOf(path: string): Promise<number> {
  try {
    return (await stat(path)).size;
  } catch (error) {
    if (isErrno(error, "ENOENT")) return 0;
    throw error;
  }
}

/** Makes the directory and removes what is too old or too many in it. */
export async function sweepPartials(dir: string, nowMs: number): Promise<void> {
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const names = (await readdir(dir)).filter((name) => namePattern.test(name));
  const bases = [...new Set(names.map((name) => name.slice(0, 64)))];
  const aged = await Promise.all(
    bases.map(async (base) => {
      const files = names.filter((name) => name.startsWith(base)).map((name) => join(dir, name));
      const times = await Promise.all(files.map(modifiedMs));
      const isLocked = names.includes(`${base}.lock`);
      return { files, isLocked, usedMs: Math.max(...times) };
    }),
  );
  const newest = aged.toSorted((a, b) => b.usedMs - a.usedMs);
  const doomed = newest.filter(
    ({ usedMs, isLocked }, place) =>
      (place >= partialsMax && !isLocked) || nowMs - usedMs > partialAgeMaxMs,
  );
  for (const file of doomed.flatMap(({ files }) => files)) await rm(file, { force: true });
}

async function modifiedMs(path: string): Promise<number> {
  try {
    return (await stat(path)).mtimeMs;
  } catch (error) {
    if (isErrno(error, "ENOENT")) return 0;
    throw error;
  }
}
