import { readdir, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import type { DataPaths } from "../../config/data-paths.ts";
import { isErrno } from "../../lib/atomic.ts";
import { snapshotFiles } from "../../store/layout.ts";
import { listRootImages } from "../../store/rootfs.ts";
import type { CleanupItem } from "./item.ts";

/** From the making of an image to the parent that has it open. */
const bakeGraceMs = 60 * 60_000;

/** Any manifest, also one of a newer format: what it names by hash is used. */
const hashPattern = /[0-9a-f]{64}/g;

interface ImageLook {
  readonly paths: DataPaths;
  /** What some process holds. */
  readonly held: ReadonlySet<string>;
  readonly nowMs: number;
}

/** Root images that no snapshot names and no process has open. Throws when a manifest is unreadable. */
export async function unusedRootImages({ paths, held, nowMs }: ImageLook): Promise<CleanupItem[]> {
  const named = await namedHashes(paths);
  const images = (await listRootImages(paths)).filter(({ sha256 }) => !named.has(sha256));
  return await Promise.all(
    images.map(async ({ path, ref }): Promise<CleanupItem> => {
      const { ctimeMs, atimeMs, blocks } = await stat(path);
      const isRecent = nowMs - Math.max(ctimeMs, atimeMs) < bakeGraceMs;
      const recent = isRecent ? "it was used in the last hour" : null;
      return {
        kind: "root_image",
        what: path,
        why: `no snapshot is of ${ref}`,
        bytes: blocks * 512,
        keep: held.has(path) ? "a process uses it" : recent,
        removed: false,
        problem: null,
      };
    }),
  );
}

/** Its record goes first: what is without one is no image. */
export async function removeRootImage(path: string): Promise<void> {
  await rm(path.replace(/\.img$/, ".json"), { force: true });
  await rm(path, { force: true });
}

/** Every hash in every manifest, those of snapshots that are being written too. */
async function namedHashes({ snapshotsDir }: DataPaths): Promise<ReadonlySet<string>> {
  const names = await readdir(snapshotsDir).catch((error: unknown) => {
    if (isErrno(error, "ENOENT")) return [];
    throw error;
  });
  const named = new Set<string>();
  for (const name of names) {
    const text = await readManifest(join(snapshotsDir, name, snapshotFiles.manifest));
    for (const [hash] of text.matchAll(hashPattern)) named.add(hash);
  }
  return named;
}

async function readManifest(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (isErrno(error, "ENOENT") || isErrno(error, "ENOTDIR")) return "";
    throw error;
  }
}
