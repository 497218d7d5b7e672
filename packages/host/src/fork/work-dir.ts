import { randomBytes } from "node:crypto";
import { mkdir, readdir, readFile, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { ForkdError } from "@forkd/api";
import { z } from "zod";
import type { DataPaths } from "../config/data-paths.ts";
import { isErrno, replaceFile } from "../lib/atomic.ts";
import type { Logger } from "../lib/log.ts";
import {
  findProcess,
  identifyProcess,
  isAlive,
  type ProcessIdentity,
  processesIn,
  waitUntilGone,
} from "../linux/proc.ts";

const ownerFile = "owner.json";
/** sockaddr_un holds 108 bytes with the final zero (unix(7)); "/agent.sock" is the longest name. */
const workDirBytesMax = 107 - "/agent.sock".length;

const reapTimeoutMs = 5_000;
/** A directory that is being made or removed: by which pid, and its start time. */
const transientPattern = /^\.(?:new|old)-(\d{1,10})\.(\d{1,20})-/;

const ownerSchema = z.object({ pid: z.int(), startTicks: z.int(), bootId: z.string() });

/**
 * Makes the directory of one VM: its sockets, its VMM's log, and who owns it. A sweep can tell from
 * the owner whether the directory is a leftover.
 */
export async function createWorkDir(
  paths: DataPaths,
  name: string,
  owner: ProcessIdentity,
): Promise<string> {
  const dir = join(paths.workDir, name);
  if (Buffer.byteLength(dir) > workDirBytesMax) {
    throw new ForkdError("bad_request", `${dir} is too long for a socket's address`, {
      hint: `choose a data directory with a shorter path (FORKD_DATA_DIR)`,
    });
  }
  await mkdir(paths.workDir, { recursive: true, mode: 0o700 });
  // Under a name that says whose it is until the file inside does: no instant leaves it nobody's.
  const unclaimed = join(paths.workDir, `.new-${owner.pid}.${owner.startTicks}-${name}`);
  await mkdir(unclaimed, { mode: 0o700 });
  await claimWorkDir(unclaimed, owner);
  await rename(unclaimed, dir);
  return dir;
}

/** Says whose the directory is from now on. */
export async function claimWorkDir(dir: string, owner: ProcessIdentity): Promise<void> {
  await replaceFile(join(dir, ownerFile), JSON.stringify(owner));
}

/** Under a name that says who removes it, so that a removal that is cut off is taken up again. */
export async function removeWorkDir(dir: string, remover: ProcessIdentity): Promise<void> {
  const { pid, startTicks } = remover;
  const doomed = join(dirname(dir), `.old-${pid}.${startTicks}-${basename(dir)}`);
  try {
    await rename(dir, doomed);
  } catch (error) {
    if (isErrno(error, "ENOENT")) return;
    throw error;
  }
  await rm(doomed, { recursive: true, force: true });
}

/** A name for a parent's directory, which has no sandbox id. */
export function parentWorkName(): string {
  return `parent-${randomBytes(6).toString("hex")}`;
}

/** Directories whose owner is gone. */
export async function orphanedWorkDirs(paths: DataPaths): Promise<string[]> {
  const names = await readdir(paths.workDir).catch((error: unknown) => {
    if (isErrno(error, "ENOENT")) return [];
    throw error;
  });
  const lost = await Promise.all(names.map((name) => isOrphan(paths.workDir, name)));
  return names.filter((_, index) => lost[index]).map((name) => join(paths.workDir, name));
}

async function isOrphan(workDir: string, name: string): Promise<boolean> {
  const [, pid, ticks] = transientPattern.exec(name) ?? [];
  if (pid !== undefined) return findProcess(Number(pid))?.startTicks !== Number(ticks);
  const owner = await readOwner(join(workDir, name));
  return owner !== undefined && !isAlive(owner);
}

/**
 * Ends what runs in a directory that nobody owns, then removes it. A VMM is found by its current
 * directory, because its owner may have died before it wrote down the pid.
 */
export async function reapWorkDir(
  dir: string,
  { owner, log }: { readonly owner: ProcessIdentity; readonly log: Logger },
): Promise<void> {
  const pids = await processesIn(dir);
  log.warn("removing a work directory whose owner is gone", { dir, pids });
  for (const pid of pids) {
    const vmm = identifyProcess(pid);
    if (vmm === undefined) continue;
    process.kill(pid, "SIGKILL");
    await waitUntilGone(vmm, reapTimeoutMs);
  }
  await removeWorkDir(dir, owner);
}

/** Undefined for a directory that is not ours. */
async function readOwner(dir: string): Promise<ProcessIdentity | undefined> {
  try {
    return ownerSchema.parse(JSON.parse(await readFile(join(dir, ownerFile), "utf8")));
  } catch {
    return undefined;
  }
}
