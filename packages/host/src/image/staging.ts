import { randomBytes } from "node:crypto";
import { mkdir, readdir, statfs } from "node:fs/promises";
import { join } from "node:path";
import { ForkdError, limits } from "@forkd/api";
import { isErrno } from "../lib/atomic.ts";
import { sleep } from "../lib/deadline.ts";
import { run } from "../lib/exec.ts";
import { findProcess } from "../linux/proc.ts";

const guardIntervalMs = 500;
const removeTriesMax = 3;
const removeRetryMs = 100;
/** Space left alone on the store's file system, so that running sandboxes can go on. */
const freeBytesMin = 256 * 1024 * 1024;
const usedBytesMax = 2 * limits.rootfsMaxMib * 1024 * 1024;

/**
 * Gives `work` a directory below `parent` that nobody else may enter, and removes it however the
 * work ends. The signal that the work gets also aborts, with disk_full, when the file system runs
 * low or the image turns out larger than any that is allowed.
 */
export async function withStaging<T>(
  parent: string,
  signal: AbortSignal | undefined,
  work: (dir: string, signal: AbortSignal) => Promise<T>,
): Promise<T> {
  signal?.throwIfAborted();
  await mkdir(parent, { recursive: true, mode: 0o700 });
  await removeLeftovers(parent);
  const guard = await watchDisk(parent);
  const dir = join(parent, ownName());
  const signals = signal === undefined ? [guard.signal] : [signal, guard.signal];
  try {
    await mkdir(dir, { mode: 0o700 });
    return await work(dir, AbortSignal.any(signals));
  } finally {
    guard.stop();
    await removeTree(dir);
  }
}

/** Says who works there, so that what a killed process left can be told from work in progress. */
function ownName(): string {
  const started = findProcess(process.pid)?.startTicks ?? 0;
  return `${process.pid}.${started}-${randomBytes(6).toString("hex")}`;
}

/** What killed processes left below a staging directory. */
export async function findLeftovers(parent: string): Promise<string[]> {
  const names = await readdir(parent).catch((error: unknown) => {
    if (isErrno(error, "ENOENT")) return [];
    throw error;
  });
  const left = names.filter((name) => {
    const [pid, started] = (name.split("-")[0] ?? "").split(".").map(Number);
    const owner = findProcess(pid ?? 0);
    return owner === undefined || owner.startTicks !== started;
  });
  return left.map((name) => join(parent, name));
}

/** Removes what killed processes left below a staging directory; the living keep theirs. */
export async function removeLeftovers(parent: string): Promise<void> {
  for (const dir of await findLeftovers(parent)) await removeTree(dir);
}

/**
 * A program does it: a tree of an image has a hundred thousand files. A killed program's children
 * may write for a moment longer, which makes a directory look full again.
 */
export async function removeTree(dir: string): Promise<void> {
  for (let triesLeft = removeTriesMax; ; triesLeft -= 1) {
    try {
      await run(["rm", "-rf", "--one-file-system", "--", dir]);
      return;
    } catch (error) {
      if (triesLeft <= 1) throw error;
      await sleep(removeRetryMs);
    }
  }
}

async function freeBytes(dir: string): Promise<number> {
  const { bavail, bsize } = await statfs(dir);
  return bavail * bsize;
}

async function watchDisk(dir: string): Promise<{ signal: AbortSignal; stop: () => void }> {
  const controller = new AbortController();
  const free = await freeBytes(dir);
  const check = async (): Promise<void> => {
    const now = await freeBytes(dir);
    if (now < freeBytesMin) controller.abort(full(dir, `only ${mib(now)} MiB are free`));
    else if (free - now > usedBytesMax) controller.abort(full(dir, "the image is too large"));
  };
  await check();
  if (controller.signal.aborted) throw controller.signal.reason;
  // No event tells of a file system that fills up.
  const timer = setInterval(() => void check().catch(() => undefined), guardIntervalMs);
  return { signal: controller.signal, stop: () => clearInterval(timer) };
}

function mib(bytes: number): number {
  return Math.floor(bytes / 1024 / 1024);
}

function full(dir: string, why: string): ForkdError {
  return new ForkdError("disk_full", `the file system of ${dir} cannot hold the image: ${why}`);
}
