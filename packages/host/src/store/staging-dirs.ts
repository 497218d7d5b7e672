import { mkdir, mkdtemp, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { findProcess, type ProcessIdentity } from "../linux/proc.ts";
import { undefinedIfMissing } from "./files.ts";

/** Directories that begin so are being written, or were when a process died. */
const stagingPrefix = ".staging-";
/** `.staging-<pid>.<start ticks>-<what>`: whose it is, so that a sweep can tell a leftover. */
const stagingPattern = /^\.staging-(\d{1,10})\.(\d{1,20})-/;

/** A fresh directory in `root` that carries its owner's name. */
export async function makeStagingDir(
  root: string,
  owner: ProcessIdentity,
  what: string,
): Promise<string> {
  await mkdir(root, { recursive: true, mode: 0o700 });
  return mkdtemp(join(root, `${stagingPrefix}${owner.pid}.${owner.startTicks}-${what}-`));
}

/** Whether a name is one of somebody who writes or removes something, alive or not. */
export function isStagingName(name: string): boolean {
  return name.startsWith(stagingPrefix);
}

/** What processes that are gone were writing or removing in `root`. */
export async function findStaleStagingDirs(root: string): Promise<string[]> {
  const names = (await readdir(root).catch(undefinedIfMissing)) ?? [];
  const stale = names.filter((name) => {
    const [, pid, ticks] = stagingPattern.exec(name) ?? [];
    if (pid === undefined || ticks === undefined) return false;
    return findProcess(Number(pid))?.startTicks !== Number(ticks);
  });
  return stale.map((name) => join(root, name));
}

/** Removes what processes that are gone were writing or removing in `root`. */
export async function sweepStagingDirs(root: string): Promise<void> {
  for (const dir of await findStaleStagingDirs(root)) await removeTree(dir);
}

/** Removes a directory of the store with all that is in it. Nothing, when it is gone. */
export async function removeTree(dir: string): Promise<void> {
  await rm(dir, { recursive: true, force: true });
}
