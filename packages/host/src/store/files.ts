import type { BigIntStats, Stats } from "node:fs";
import { stat } from "node:fs/promises";
import { basename } from "node:path";
import { ForkdError } from "@forkd/api";
import { isErrno } from "../lib/atomic.ts";

/** The unit of `st_blocks` (stat(2)). */
const blockBytes = 512;

export function undefinedIfMissing(error: unknown): undefined {
  if (isErrno(error, "ENOENT")) return undefined;
  throw error;
}

export function statOrUndefined(path: string): Promise<Stats | undefined> {
  return stat(path).catch(undefinedIfMissing);
}

/**
 * What changes when a file's bytes do: device, inode, size, and both times in nanoseconds. It stays
 * when the directory of the file is renamed. Undefined when there is no such file.
 */
export async function fileIdentity(path: string): Promise<string | undefined> {
  const stats = await stat(path, { bigint: true }).catch(undefinedIfMissing);
  return stats === undefined ? undefined : identityOf(stats);
}

function identityOf({ dev, ino, size, mtimeNs, ctimeNs }: BigIntStats): string {
  return [dev, ino, size, mtimeNs, ctimeNs].join(":");
}

/** The identity of a file; throws snapshot_incomplete when it is none of that size. */
export async function requireFile(path: string, size: number | undefined): Promise<string> {
  const stats = await stat(path, { bigint: true }).catch(undefinedIfMissing);
  if (stats === undefined || !stats.isFile()) {
    throw new ForkdError("snapshot_incomplete", `${basename(path)} is missing: ${path}`);
  }
  if (size !== undefined && Number(stats.size) !== size) {
    const message = `${path} has ${stats.size} bytes, the manifest says ${size}`;
    throw new ForkdError("snapshot_incomplete", message);
  }
  return identityOf(stats);
}

/** Size and allocated bytes of a file that was just written. */
export async function measure(path: string): Promise<{ size: number; physical_bytes: number }> {
  const stats = await stat(path);
  return { size: stats.size, physical_bytes: stats.blocks * blockBytes };
}
