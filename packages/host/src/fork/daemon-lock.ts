import { mkdir, open, readFile, rm } from "node:fs/promises";
import { ForkdError } from "@forkd/api";
import { z } from "zod";
import type { DataPaths } from "../config/data-paths.ts";
import { isErrno } from "../lib/atomic.ts";
import { isAlive, type ProcessIdentity } from "../linux/proc.ts";
import { layout } from "../store/layout.ts";

const holderSchema = z.object({ pid: z.int(), startTicks: z.int(), bootId: z.string() });
/** Each attempt either takes the lock, names a living holder, or removes a dead one's file. */
const attemptsMax = 5;

export interface Lock {
  release(): Promise<void>;
}

/**
 * One daemon a data directory: a file made with O_EXCL that names its holder by pid, start time and
 * boot. A holder that no longer runs has no lock. Throws data_dir_locked.
 */
export async function acquireDaemonLock(paths: DataPaths, self: ProcessIdentity): Promise<Lock> {
  await mkdir(paths.dataDir, { recursive: true, mode: 0o755 });
  const path = layout.daemonLock(paths);
  for (let attempt = 0; attempt < attemptsMax; attempt += 1) {
    if (await create(path, self)) return { release: () => rm(path, { force: true }) };
    const holder = await readHolder(path);
    if (holder !== undefined && isAlive(holder)) {
      const message = `${paths.dataDir} belongs to the daemon with pid ${holder.pid}`;
      throw new ForkdError("data_dir_locked", message);
    }
    await rm(path, { force: true });
  }
  throw new ForkdError("data_dir_locked", `${path} is being taken by other daemons`);
}

/** The living daemon of a data directory. */
export async function findDaemon(paths: DataPaths): Promise<ProcessIdentity | undefined> {
  const holder = await readHolder(layout.daemonLock(paths));
  return holder !== undefined && isAlive(holder) ? holder : undefined;
}

async function create(path: string, self: ProcessIdentity): Promise<boolean> {
  try {
    await using handle = await open(path, "wx", 0o600);
    await handle.writeFile(JSON.stringify(self));
    return true;
  } catch (error) {
    if (isErrno(error, "EEXIST")) return false;
    throw error;
  }
}

async function readHolder(path: string): Promise<ProcessIdentity | undefined> {
  try {
    return holderSchema.parse(JSON.parse(await readFile(path, "utf8")));
  } catch {
    return undefined;
  }
}
