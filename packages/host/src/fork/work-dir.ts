import { randomBytes } from "node:crypto";
import { mkdir, readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { ForkdError } from "@forkd/api";
import { z } from "zod";
import type { DataPaths } from "../config/data-paths.ts";
import { isErrno, replaceFile } from "../lib/atomic.ts";
import type { Logger } from "../lib/log.ts";
import { isAlive, type ProcessIdentity } from "../linux/proc.ts";

const ownerFile = "owner.json";
/** sockaddr_un holds 108 bytes with the final zero (unix(7)); "/agent.sock" is the longest name. */
const workDirBytesMax = 107 - "/agent.sock".length;

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
  await mkdir(dir, { mode: 0o700 });
  await replaceFile(join(dir, ownerFile), JSON.stringify(owner));
  return dir;
}

export async function removeWorkDir(dir: string): Promise<void> {
  await rm(dir, { recursive: true, force: true });
}

/** A name for a parent's directory, which has no sandbox id. */
export function parentWorkName(): string {
  return `parent-${randomBytes(6).toString("hex")}`;
}

/**
 * Removes directories whose owner is gone. Their VMMs are gone too: they end with their owner
 * (forkd-launch --die-with-parent).
 */
export async function sweepWorkDirs(paths: DataPaths, log: Logger): Promise<void> {
  const names = await readdir(paths.workDir).catch((error: unknown) => {
    if (isErrno(error, "ENOENT")) return [];
    throw error;
  });
  for (const name of names) {
    const dir = join(paths.workDir, name);
    const owner = await readOwner(dir);
    if (owner === undefined || isAlive(owner)) continue;
    log.info("removing a work directory whose owner is gone", { dir });
    await removeWorkDir(dir);
  }
}

/** Undefined for a directory that is just being made, or is not ours. */
async function readOwner(dir: string): Promise<ProcessIdentity | undefined> {
  try {
    return ownerSchema.parse(JSON.parse(await readFile(join(dir, ownerFile), "utf8")));
  } catch {
    return undefined;
  }
}
