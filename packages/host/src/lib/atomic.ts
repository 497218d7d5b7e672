import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { open, readdir, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { ForkdError } from "@forkd/api";

/** `.staging-<name>-<pid>-<random>`: a file that is being written, and by whom. */
const stagingPattern = /^\.staging-.+-(\d{1,10})-[0-9a-f]{12}$/;

/** A name beside `path` that nobody else uses, recognisable as a leftover. */
export function stagingName(path: string): string {
  const unique = `${process.pid}-${randomBytes(6).toString("hex")}`;
  return join(dirname(path), `.staging-${basename(path)}-${unique}`);
}

/**
 * Paths of files in `dir` that a process was writing when it died. A process that has its pid by
 * now hides one, until it ends too.
 */
export async function leftoverFiles(dir: string): Promise<string[]> {
  const names = await readdir(dir).catch((error: unknown) => {
    if (isErrno(error, "ENOENT")) return [];
    throw error;
  });
  const left = names.filter((name) => {
    const pid = stagingPattern.exec(name)?.[1];
    return pid !== undefined && !existsSync(`/proc/${pid}`);
  });
  return left.map((name) => join(dir, name));
}

/** Flushes a file or a directory to the disk. */
export async function syncPath(path: string): Promise<void> {
  await using handle = await open(path, "r");
  await handle.sync();
}

/** Writes all of `data` or nothing: temporary name, fsync, rename, fsync of the directory. */
export async function writeFileAtomic(
  path: string,
  data: string | Uint8Array,
  options: { readonly mode?: number } = {},
): Promise<void> {
  const staging = stagingName(path);
  try {
    {
      await using handle = await open(staging, "wx", options.mode ?? 0o600);
      await handle.writeFile(data);
      await handle.sync();
    }
    await rename(staging, path);
  } catch (error) {
    await rm(staging, { force: true });
    throw error;
  }
  await syncPath(dirname(path));
}

/** Replaces a file whose loss in a power cut is harmless: readers see the old or the new one. */
export async function replaceFile(path: string, data: string): Promise<void> {
  const staging = stagingName(path);
  try {
    {
      await using handle = await open(staging, "wx", 0o600);
      await handle.writeFile(data);
    }
    await rename(staging, path);
  } catch (error) {
    await rm(staging, { force: true });
    throw error;
  }
}

/**
 * Makes a finished flat directory visible under its final name. Both must be on one file system.
 * Throws snapshot_exists when the name is taken.
 */
export async function publishDir(staging: string, target: string): Promise<void> {
  for (const name of await readdir(staging)) await syncPath(join(staging, name));
  await syncPath(staging);
  try {
    await rename(staging, target);
  } catch (error) {
    if (isErrno(error, "ENOTEMPTY") || isErrno(error, "EEXIST")) {
      throw new ForkdError("snapshot_exists", `${target} exists already`, { cause: error });
    }
    throw error;
  }
  await syncPath(dirname(target));
}

/** Whether a thrown value is a system error with this errno name. */
export function isErrno(thrown: unknown, name: string): boolean {
  return thrown instanceof Error && "code" in thrown && thrown.code === name;
}
