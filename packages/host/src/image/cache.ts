import { createHash } from "node:crypto";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { DataPaths } from "../config/data-paths.ts";
import { isErrno, replaceFile } from "../lib/atomic.ts";
import { findRootImage, isImageConfig, type RootImage } from "../store/rootfs.ts";

/** Changes when the same inputs would give another image. */
const builderVersion = 1;

/** All that decides what an image holds. */
export interface CacheInputs {
  /** Names the source's content: a digest, hash or suite. */
  readonly source: string;
  /** Sorted. */
  readonly packages: readonly string[];
  readonly sizeMib: number | null;
}

export function cacheKey({ source, packages, sizeMib }: CacheInputs): string {
  const inputs = JSON.stringify([builderVersion, source, packages, sizeMib]);
  return createHash("sha256").update(inputs).digest("hex");
}

function recordPath(paths: DataPaths, key: string): string {
  return join(paths.cacheDir, "images", `${key}.json`);
}

/** The image that was made from these inputs, if it is still in the store. */
export async function findCached(paths: DataPaths, key: string): Promise<RootImage | undefined> {
  try {
    const record: unknown = JSON.parse(await readFile(recordPath(paths, key), "utf8"));
    if (typeof record !== "object" || record === null) return undefined;
    const { sha256, config } = record as { sha256?: unknown; config?: unknown };
    if (typeof sha256 !== "string" || !isImageConfig(config)) return undefined;
    const image = await findRootImage(paths, sha256);
    // Two images of one content may differ in their configuration; the cache remembers its own.
    return image === undefined ? undefined : { ...image, config };
  } catch (error) {
    if (isErrno(error, "ENOENT") || error instanceof SyntaxError) return undefined;
    throw error;
  }
}

export async function rememberImage(
  paths: DataPaths,
  key: string,
  image: RootImage,
): Promise<void> {
  const path = recordPath(paths, key);
  await mkdir(join(paths.cacheDir, "images"), { recursive: true });
  await replaceFile(path, JSON.stringify({ sha256: image.sha256, config: image.config }));
}
