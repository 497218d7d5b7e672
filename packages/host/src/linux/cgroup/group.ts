import { watch } from "node:fs";
import { readFile, rmdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { ForkdError } from "@forkd/api";
import { isErrno } from "../../lib/atomic.ts";
import { sleep } from "../../lib/deadline.ts";
import type { LimitPlan, Setting } from "./settings.ts";

/** A killed VMM with a full guest takes the kernel about a second to take apart. */
const emptyTimeoutMs = 10_000;
/** cgroup v1 tells nobody when a group becomes empty. */
const emptyLookMs = 20;

/** Why one limit is not in force. */
export interface Refusal {
  readonly reason: string;
}

/** Writes one limit into the group `dir` and reads it back; undefined when it is in force. */
export async function applyLimit(dir: string, plan: LimitPlan): Promise<Refusal | undefined> {
  for (const setting of plan.settings) {
    const refusal = await applySetting(dir, setting);
    if (refusal !== undefined) return refusal;
  }
  return undefined;
}

async function applySetting(dir: string, setting: Setting): Promise<Refusal | undefined> {
  const path = join(dir, setting.file);
  try {
    await writeFile(path, setting.text, { flag: "r+" });
  } catch (error) {
    if (setting.optional && isErrno(error, "ENOENT")) return undefined;
    return { reason: `${path} does not take ${setting.text}: ${wordsOf(error)}` };
  }
  return await checkSetting(dir, setting);
}

/** Reads one limit of the group `dir`; undefined when it is in force. */
export async function checkLimit(dir: string, plan: LimitPlan): Promise<Refusal | undefined> {
  for (const setting of plan.settings) {
    const refusal = await checkSetting(dir, setting);
    if (refusal !== undefined) return refusal;
  }
  return undefined;
}

async function checkSetting(dir: string, setting: Setting): Promise<Refusal | undefined> {
  const path = join(dir, setting.file);
  try {
    const text = await readFile(path, "utf8");
    const isThere = text.split("\n").some((line) => setting.expected.test(line.trim()));
    return isThere ? undefined : { reason: `${path} holds ${JSON.stringify(text.trim())}` };
  } catch (error) {
    if (setting.optional && isErrno(error, "ENOENT")) return undefined;
    return { reason: `${path} cannot be read: ${wordsOf(error)}` };
  }
}

export function wordsOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Pids in a group, not in groups below it. Empty when there is no such group. */
export async function processesOf(dir: string): Promise<number[]> {
  const text = await readFile(join(dir, "cgroup.procs"), "utf8").catch((error: unknown) => {
    if (isErrno(error, "ENOENT") || isErrno(error, "ENODEV")) return "";
    throw error;
  });
  return text.split("\n").filter(Boolean).map(Number);
}

/** Where the kernel counts the processes of a group that it killed for want of memory. */
const oomCounters = ["memory.events", "memory.oom_control"];

/**
 * Whether the kernel killed a process of these groups for want of memory: their own limit's or the
 * host's. Ask before they are removed. Groups that are gone, or without the controller, say no.
 */
export async function wasOomKilled(dirs: readonly string[]): Promise<boolean> {
  const paths = dirs.flatMap((dir) => oomCounters.map((file) => join(dir, file)));
  const counts = await Promise.all(
    paths.map(async (path) => parseOomKills(await readFile(path, "utf8").catch(() => ""))),
  );
  return counts.some((count) => count > 0);
}

/** The number after `oom_kill`, which both files spell alike. */
export function parseOomKills(text: string): number {
  return Number(/^oom_kill (\d+)$/m.exec(text)?.[1] ?? 0);
}

/** Ends every process of a group at once: by one write where the kernel can, else one by one. */
export async function killCgroup(dir: string): Promise<void> {
  try {
    await writeFile(join(dir, "cgroup.kill"), "1", { flag: "r+" });
  } catch (error) {
    if (!isErrno(error, "ENOENT")) throw error;
    for (const pid of await processesOf(dir)) killProcess(pid);
  }
}

function killProcess(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It ended between the look and the kill.
  }
}

/**
 * Removes a group, waiting for the last of its processes to be gone. Idempotent. Throws
 * deadline_exceeded when some process stays.
 */
export async function removeCgroup(dir: string, timeoutMs = emptyTimeoutMs): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!(await removed(dir))) {
    const leftMs = deadline - performance.now();
    if (leftMs <= 0) {
      const pids = (await processesOf(dir)).join(", ");
      throw new ForkdError("deadline_exceeded", `${dir} still holds processes: ${pids}`);
    }
    await untilEmpty(dir, leftMs);
  }
}

async function removed(dir: string): Promise<boolean> {
  try {
    await rmdir(dir);
    return true;
  } catch (error) {
    if (isErrno(error, "ENOENT")) return true;
    if (isErrno(error, "EBUSY")) return false;
    throw error;
  }
}

/** Returns when the group may be empty, or after `timeoutMs`. */
async function untilEmpty(dir: string, timeoutMs: number): Promise<void> {
  const events = join(dir, "cgroup.events");
  const isPopulated = async (): Promise<boolean | undefined> => {
    const text = await readFile(events, "utf8").catch(() => undefined);
    return text === undefined ? undefined : /^populated 1$/m.test(text);
  };
  if ((await isPopulated()) !== true) return await sleep(emptyLookMs);
  await untilChanged(events, timeoutMs, async () => (await isPopulated()) !== true);
}

/** Looks at once and after every change of the file, until `done` or the time is over. */
async function untilChanged(
  path: string,
  timeoutMs: number,
  done: () => Promise<boolean>,
): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const look = (): void => void done().then((isDone) => isDone && resolve(), resolve);
  const watcher = watch(path, look);
  watcher.on("error", () => resolve());
  const timer = setTimeout(resolve, timeoutMs);
  look();
  await promise;
  clearTimeout(timer);
  watcher.close();
}
