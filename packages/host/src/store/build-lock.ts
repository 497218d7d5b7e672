import { randomBytes } from "node:crypto";
import { link, readFile, rm, writeFile } from "node:fs/promises";
import { ForkdError } from "@forkd/api";
import { isErrno } from "../lib/atomic.ts";
import { sleep } from "../lib/deadline.ts";
import { isAlive, type ProcessIdentity } from "../linux/proc.ts";
import { undefinedIfMissing } from "./files.ts";

/** Node has no event for the end of another process, so the holder is looked at this often. */
const lookMs = 20;

export interface BuildLock {
  release(): Promise<void>;
}

/**
 * A lock between processes that want to make the same thing: a file that names its holder. A holder
 * that no longer runs has no lock. Two may get it when a third died in between; what they make is
 * published by a rename, so that is only waste. Throws deadline_exceeded.
 */
export async function acquireBuildLock(
  path: string,
  owner: ProcessIdentity,
  timeoutMs: number,
): Promise<BuildLock> {
  const deadline = performance.now() + timeoutMs;
  const { pid, startTicks, bootId } = owner;
  const text = JSON.stringify({ pid, startTicks, bootId });
  while (!(await take(path, text))) {
    const holder = await readFile(path, "utf8").catch(undefinedIfMissing);
    if (holder === undefined) continue;
    if (!isHeld(holder)) await rm(path, { force: true });
    else if (performance.now() > deadline) {
      throw new ForkdError("deadline_exceeded", `${path} was held for over ${timeoutMs} ms`);
    } else await sleep(lookMs);
  }
  return { release: () => rm(path, { force: true }) };
}

/** By a link, so that the file is never there without its content. */
async function take(path: string, text: string): Promise<boolean> {
  const own = `${path}.${randomBytes(6).toString("hex")}`;
  await writeFile(own, text, { flag: "wx", mode: 0o600 });
  try {
    await link(own, path);
    return true;
  } catch (error) {
    if (isErrno(error, "EEXIST")) return false;
    throw error;
  } finally {
    await rm(own, { force: true });
  }
}

function isHeld(text: string): boolean {
  try {
    const { pid, startTicks, bootId }: ProcessIdentity = JSON.parse(text);
    return isAlive({ pid, startTicks, bootId });
  } catch {
    return false;
  }
}
