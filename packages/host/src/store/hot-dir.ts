import { mkdir, readdir, readFile, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { z } from "zod";
import type { DataPaths } from "../config/data-paths.ts";
import { replaceFile } from "../lib/atomic.ts";
import { fileIdentity, statOrUndefined, undefinedIfMissing } from "./files.ts";

/** Says which data directory the images belong to, so that a stranger can tell that it is gone. */
const ownerFile = "owner.json";
const ownerSchema = z.object({ data_dir: z.string(), inode: z.string() });

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
      const owner = { data_dir: dataDir, inode: await inodeOf(dataDir) };
      await replaceFile(join(hotDir, ownerFile), JSON.stringify(owner));
    }
    return true;
  } catch {
    return false;
  }
}

async function inodeOf(dir: string): Promise<string> {
  const [device = "", inode = ""] = ((await fileIdentity(dir)) ?? "").split(":");
  return `${device}:${inode}`;
}

/** Directories in memory, beside `hotDir`, whose data directory is no longer there. */
export async function findStaleHotDirs({ hotDir }: DataPaths): Promise<string[]> {
  const root = dirname(hotDir);
  const names = (await readdir(root).catch(undefinedIfMissing)) ?? [];
  const dirs = names.filter((name) => /^[0-9a-f]{16}$/.test(name)).map((name) => join(root, name));
  const stale = await Promise.all(dirs.map(isStale));
  return dirs.filter((_, i) => stale[i]);
}

async function isStale(dir: string): Promise<boolean> {
  try {
    const owner = ownerSchema.parse(JSON.parse(await readFile(join(dir, ownerFile), "utf8")));
    return (await inodeOf(owner.data_dir)) !== owner.inode;
  } catch {
    // Being made right now, or not ours: not to be touched.
    return false;
  }
}
