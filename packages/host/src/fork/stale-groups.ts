import { mkdir, readdir, realpath, rm, rmdir } from "node:fs/promises";
import { join } from "node:path";
import type { DataPaths } from "../config/data-paths.ts";
import { isErrno } from "../lib/atomic.ts";
import { treeTops } from "../linux/cgroup/bases.ts";
import { readHierarchies } from "../linux/cgroup/hierarchies.ts";
import { isOwnerGone, writeOwner } from "../store/owner-file.ts";
import { dataDirHash, dataDirHashPattern } from "./data-dir-hash.ts";

/** Like the groups themselves, it is gone when the host restarts. */
const ownersDir = "/run/forkd/data-dirs";

/**
 * Says which data directory groups of its name belong to, for when that is not there to say it. Who
 * may not write there is no worse off.
 */
export async function claimGroups(paths: DataPaths): Promise<void> {
  try {
    await mkdir(ownersDir, { recursive: true, mode: 0o700 });
    // By the name that is hashed: one that is a link may come to lead elsewhere.
    await writeOwner(join(ownersDir, dataDirHash(paths)), await realpath(paths.dataDir));
  } catch {
    // Its groups stay until the host restarts, should the directory be removed before them.
  }
}

/**
 * Removes the groups below `treeName` of data directories that are not there any more. Those that
 * hold a process stay, and what nobody has claimed.
 */
export async function removeStaleGroups(treeName: string): Promise<void> {
  const names = await namesIn(ownersDir);
  const claimed = names.filter((name) => dataDirHashPattern.test(name));
  const gone = await Promise.all(claimed.map((name) => isOwnerGone(join(ownersDir, name))));
  const tops = treeTops(await readHierarchies(), treeName);
  for (const name of claimed.filter((_, i) => gone[i])) {
    const trees = await Promise.all(tops.map((top) => removeEmpty(join(top, name))));
    if (trees.every(Boolean)) await rm(join(ownersDir, name), { force: true });
  }
}

/** Whether the tree is gone. The kernel removes no group that holds a process (cgroups(7)). */
async function removeEmpty(dir: string): Promise<boolean> {
  for (const name of await namesIn(dir)) await rmdir(join(dir, name)).catch(() => undefined);
  return await rmdir(dir).then(
    () => true,
    (error: unknown) => isErrno(error, "ENOENT"),
  );
}

/** Of groups the kernel lists its own files too, which no rmdir takes. */
async function namesIn(dir: string): Promise<string[]> {
  return await readdir(dir).catch(() => []);
}
