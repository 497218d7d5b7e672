import { readFileSync } from "node:fs";
import { readdir, readFile, readlink } from "node:fs/promises";
import { join } from "node:path";
import { sleep } from "../lib/deadline.ts";

/** A process that no reuse of its pid can be mistaken for. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Field 22 of /proc/PID/stat: clock ticks after boot when it started (proc(5)). */
  readonly startTicks: number;
  /** /proc/sys/kernel/random/boot_id when it started. */
  readonly bootId: string;
}

export interface ProcessStat {
  readonly state: string;
  readonly startTicks: number;
  /** User and system time, clock ticks. */
  readonly cpuTicks: number;
  /** The pid of the session's first process. */
  readonly session: number;
  /** Of its first thread: -20, first of all, to 19. */
  readonly nice: number;
}

let cachedBootId: string | undefined;

/** This boot of the host. */
export function bootId(): string {
  cachedBootId ??= readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  return cachedBootId;
}

/** Parses /proc/PID/stat (proc(5)); the name in parentheses may hold spaces and parentheses. */
export function parseStat(text: string): ProcessStat {
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const field = (number: number): string => fields[number - 3] ?? "";
  return {
    state: field(3),
    startTicks: Number(field(22)),
    cpuTicks: Number(field(14)) + Number(field(15)),
    session: Number(field(6)),
    nice: Number(field(19)),
  };
}

/** Undefined when there is no such process, or only its zombie. */
export function findProcess(pid: number): ProcessStat | undefined {
  try {
    const stat = parseStat(readFileSync(`/proc/${pid}/stat`, "utf8"));
    return stat.state === "Z" || stat.state === "X" ? undefined : stat;
  } catch {
    return undefined;
  }
}

/** Call while the process is surely ours, directly after its start. Undefined when it has ended. */
export function identifyProcess(pid: number): ProcessIdentity | undefined {
  const stat = findProcess(pid);
  return stat === undefined ? undefined : { pid, startTicks: stat.startTicks, bootId: bootId() };
}

/** Whether that very process still runs. */
export function isAlive(identity: ProcessIdentity): boolean {
  if (identity.bootId !== bootId()) return false;
  return findProcess(identity.pid)?.startTicks === identity.startTicks;
}

/** A process that closes its files for the last time is gone in a moment: how often to look. */
const goneLookMs = 2;

/**
 * Waits until that very process has ended. Node has no event for a process that is not its child:
 * call it when an event says that the end has come, such as the close of a socket it held, or with
 * a `lookMs` that costs little.
 */
export async function waitUntilGone(
  identity: ProcessIdentity,
  timeoutMs: number,
  lookMs = goneLookMs,
): Promise<boolean> {
  const deadline = performance.now() + timeoutMs;
  while (isAlive(identity)) {
    if (performance.now() > deadline) return false;
    await sleep(lookMs);
  }
  return true;
}

/**
 * Pids of the processes whose current directory is `dir` or below it: how a VMM is known by its
 * work directory. One in a jail has its own in there.
 */
export async function processesIn(dir: string): Promise<number[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const found = await Promise.all(
    pids.map(async (pid) => {
      const cwd = await readlink(`/proc/${pid}/cwd`).catch(() => undefined);
      return cwd === dir || cwd?.startsWith(`${dir}/`) ? [Number(pid)] : [];
    }),
  );
  return found.flat();
}

/** Current directories below `root`, by pid; those that were removed end with ` (deleted)`. */
export async function processesBelow(root: string): Promise<ReadonlyMap<number, string>> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const found = await Promise.all(
    pids.map(async (pid): Promise<[number, string][]> => {
      const cwd = await readlink(`/proc/${pid}/cwd`).catch(() => undefined);
      return cwd?.startsWith(`${root}/`) ? [[Number(pid), cwd]] : [];
    }),
  );
  return new Map(found.flat());
}

/** Every path that a process has open, by descriptor number. Gone descriptors are left out. */
export async function openFiles(pid: number): Promise<ReadonlyMap<number, string>> {
  const dir = `/proc/${pid}/fd`;
  const entries = await Promise.all(
    (await readdir(dir)).map(async (name): Promise<[number, string] | undefined> => {
      const target = await readlink(join(dir, name)).catch(() => undefined);
      return target === undefined ? undefined : [Number(name), target];
    }),
  );
  return new Map(entries.filter((entry) => entry !== undefined));
}

export interface MemoryUse {
  /** Bytes that would be freed if the process ended: unique set size. */
  readonly uniqueBytes: number;
  /** Unique bytes plus this process's share of the shared ones. */
  readonly proportionalBytes: number;
}

/** From /proc/PID/smaps_rollup (proc(5)). Throws when the process has ended. */
export async function memoryUse(pid: number): Promise<MemoryUse> {
  const text = await readFile(`/proc/${pid}/smaps_rollup`, "utf8");
  const kib = (name: string): number =>
    Number(new RegExp(`^${name}: +(\\d+)`, "m").exec(text)?.[1] ?? 0);
  return {
    uniqueBytes: (kib("Private_Clean") + kib("Private_Dirty")) * 1024,
    proportionalBytes: kib("Pss") * 1024,
  };
}
