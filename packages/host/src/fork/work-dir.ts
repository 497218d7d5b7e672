import { randomBytes } from "node:crypto";
import { mkdir, rename, rm, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { ForkdError } from "@forkd/api";
import type { DataPaths } from "../config/data-paths.ts";
import { isErrno, replaceFile } from "../lib/atomic.ts";
import {
  findProcess,
  identifyProcess,
  type ProcessIdentity,
  processesIn,
  waitUntilGone,
} from "../linux/proc.ts";
import { parseState, processIdentitySchema, readSmallFile } from "./record.ts";
import type { OnStep } from "./steps.ts";

const ownerFile = "owner.json";
const ownerBytesMax = 4096;
/** sockaddr_un holds 108 bytes with the final zero (unix(7)); "/capture.sock" is the longest name. */
const workDirBytesMax = 107 - "/capture.sock".length;

const reapTimeoutMs = 5_000;
/** A directory that is being made or removed: by which pid, and its start time. */
const transientPattern = /^\.(?:new|old)-(\d{1,10})\.(\d{1,20})-/;

export interface WorkDirPlan {
  readonly name: string;
  readonly owner: ProcessIdentity;
  /** What is in it from the first instant, by file name. */
  readonly files?: Readonly<Record<string, string>>;
}

/**
 * Makes the directory of one VM: its sockets, its VMM's log, and who owns it. A sweep can tell from
 * the owner whether the directory is a leftover.
 */
export async function createWorkDir(paths: DataPaths, plan: WorkDirPlan): Promise<string> {
  const { name, owner, files = {} } = plan;
  const dir = join(paths.workDir, name);
  if (Buffer.byteLength(dir) > workDirBytesMax) {
    throw new ForkdError("bad_request", `${dir} is too long for a socket's address`, {
      hint: `choose a data directory with a shorter path (FORKD_DATA_DIR)`,
    });
  }
  await mkdir(paths.workDir, { recursive: true, mode: 0o700 });
  // Under a name that says whose it is until the files inside do: no instant leaves it nobody's.
  const unclaimed = join(paths.workDir, `.new-${owner.pid}.${owner.startTicks}-${name}`);
  await mkdir(unclaimed, { mode: 0o700 });
  const texts = { ...files, [ownerFile]: JSON.stringify(owner) };
  await Promise.all(
    Object.entries(texts).map(([file, text]) =>
      writeFile(join(unclaimed, file), text, { mode: 0o600 }),
    ),
  );
  await rename(unclaimed, dir);
  return dir;
}

/** Says whose the directory is from now on. */
export async function claimWorkDir(dir: string, owner: ProcessIdentity): Promise<void> {
  await replaceFile(join(dir, ownerFile), JSON.stringify(owner));
}

/** Undefined for a directory that nobody claims. Throws state_corrupt. */
export async function readOwner(dir: string): Promise<ProcessIdentity | undefined> {
  const path = join(dir, ownerFile);
  const text = await readSmallFile(path, ownerBytesMax);
  return text === undefined ? undefined : parseState(path, text, processIdentitySchema);
}

/** Under a name that says who removes it, so that a removal that is cut off is taken up again. */
export async function removeWorkDir(
  dir: string,
  remover: ProcessIdentity,
  onStep: OnStep = () => undefined,
): Promise<void> {
  const { pid, startTicks } = remover;
  const doomed = join(dirname(dir), `.old-${pid}.${startTicks}-${basename(dir)}`);
  try {
    await rename(dir, doomed);
  } catch (error) {
    if (isErrno(error, "ENOENT")) return;
    throw error;
  }
  onStep("work_dir_doomed");
  await rm(doomed, { recursive: true, force: true });
  onStep("work_dir_removed");
}

/** A name for a parent's directory, which has no sandbox id. */
export function parentWorkName(): string {
  return `parent-${randomBytes(6).toString("hex")}`;
}

/** Whether a name is one of a directory being made or removed, and by whom that is not any more. */
export function transientState(name: string): "not" | "alive" | "dead" {
  const [, pid, ticks] = transientPattern.exec(name) ?? [];
  if (pid === undefined) return "not";
  return findProcess(Number(pid))?.startTicks === Number(ticks) ? "alive" : "dead";
}

/**
 * Ends what runs in a directory. A VMM is found by its current directory, because its owner may
 * have died before it wrote down the pid. Returns the pids. Throws deadline_exceeded.
 */
export async function endProcessesIn(dir: string): Promise<number[]> {
  const pids = await processesIn(dir);
  for (const pid of pids) await endProcess(pid);
  return pids;
}

async function endProcess(pid: number): Promise<void> {
  const vmm = identifyProcess(pid);
  if (vmm === undefined) return;
  try {
    process.kill(pid, "SIGKILL");
  } catch (error) {
    if (!isErrno(error, "ESRCH")) throw error;
  }
  if (await waitUntilGone(vmm, reapTimeoutMs)) return;
  throw new ForkdError(
    "deadline_exceeded",
    `process ${pid} does not end ${reapTimeoutMs} ms later`,
  );
}
