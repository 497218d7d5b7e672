import { readlink, rm, symlink } from "node:fs/promises";
import { ForkdError } from "@forkd/api";
import { isErrno } from "../lib/atomic.ts";
import { sleep } from "../lib/deadline.ts";
import { identifyProcess, isAlive, type ProcessIdentity } from "../linux/proc.ts";

/** Held for the time of one write, so that a look now and then costs less than a watch. */
const lookMs = 3;
const waitMaxMs = 5000;

/**
 * One writer at a time, of whatever process: a symbolic link, which is made in one step together
 * with what it says, its holder. One of a process that is gone counts for nothing. Throws
 * deadline_exceeded.
 */
export async function lockFile(path: string): Promise<AsyncDisposable> {
  const self = identifyProcess(process.pid);
  if (self === undefined) throw new ForkdError("internal", "/proc does not know this process");
  const deadline = performance.now() + waitMaxMs;
  while (!(await take(path, self))) {
    const holder = await readHolder(path);
    if (holder !== undefined && !isAlive(holder)) await rm(path, { force: true });
    else if (performance.now() > deadline) throw tooLong(path, holder);
    else await sleep(lookMs);
  }
  return { [Symbol.asyncDispose]: () => rm(path, { force: true }) };
}

async function take(path: string, self: ProcessIdentity): Promise<boolean> {
  try {
    await symlink(`${self.pid} ${self.startTicks} ${self.bootId}`, path);
    return true;
  } catch (error) {
    if (isErrno(error, "EEXIST")) return false;
    throw error;
  }
}

async function readHolder(path: string): Promise<ProcessIdentity | undefined> {
  const text = await readlink(path).catch(() => undefined);
  const [pid, startTicks, bootId] = text?.split(" ") ?? [];
  if (bootId === undefined) return undefined;
  return { pid: Number(pid), startTicks: Number(startTicks), bootId };
}

function tooLong(path: string, holder: ProcessIdentity | undefined): ForkdError {
  const who = holder === undefined ? "somebody" : `process ${holder.pid}`;
  return new ForkdError("deadline_exceeded", `${who} holds ${path} for more than ${waitMaxMs} ms`, {
    hint: `if nothing writes to that log, remove ${path}`,
  });
}
