import { mkdir, readdir, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { DataPaths } from "../config/data-paths.ts";
import { statOrUndefined, undefinedIfMissing } from "./files.ts";
import { isOwnerGone, writeOwner } from "./owner-file.ts";

/** Says which data directory the images belong to. */
const ownerFile = "owner.json";

/**
 * Makes the directory in memory for images of this data directory. False when that is not possible,
 * or when another user could write there: anyone may make names in a shared directory.
 */
export async function claimHotDir({ hotDir, dataDir }: DataPaths): Promise<boolean> {
  try {
    await mkdir(hotDir, { recursive: true, mode: 0o700 });
    for (const dir of [dirname(hotDir), hotDir]) {
      const { uid, mode } = await stat(dir);
      if (uid !== process.geteuid?.() || (mode & 0o022) !== 0) return false;
    }
    if ((await statOrUndefined(join(hotDir, ownerFile))) === undefined) {
      await writeOwner(join(hotDir, ownerFile), dataDir);
    }
    return true;
  } catch {
    return false;
  }
}

/** Directories in memory, beside `hotDir`, whose data directory is no longer there. */
export async function findStaleHotDirs({ hotDir }: DataPaths): Promise<string[]> {
  const root = dirname(hotDir);
  const names = (await readdir(root).catch(undefinedIfMissing)) ?? [];
  const dirs = names.filter((name) => /^[0-9a-f]{16}$/.test(name)).map((name) => join(root, name));
  const stale = await Promise.all(dirs.map((dir) => isOwnerGone(join(dir, ownerFile))));
  return dirs.filter((_, i) => stale[i]);
}
