import { createHash, randomBytes } from "node:crypto";
import { readlinkSync } from "node:fs";
import { lstat, readdir, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { isAlive, type ProcessIdentity } from "../linux/proc.ts";

/** `.staging-pack-<pid>.<start ticks>-<place>-<random>`: a pack being written, and by whom. */
const stagingPattern = /^\.staging-pack-(\d{1,10})\.(\d{1,20})-([0-9a-f]{16})-[0-9a-f]{12}$/;

/** No pack is written for so long, on whatever host: two times what one may take. */
const foreignAgeMaxMs = 2 * 24 * 60 * 60_000;

/**
 * A name beside `file` that nobody else uses. It says whose it is in a directory that other hosts
 * and containers may share, where a pid alone says nothing.
 */
export function packStagingName(file: string, owner: ProcessIdentity): string {
  const { pid, startTicks } = owner;
  const unique = `${placeOf(owner)}-${randomBytes(6).toString("hex")}`;
  return join(dirname(file), `.staging-pack-${pid}.${startTicks}-${unique}`);
}

/**
 * Removes packs beside `file` whose writers were killed. What cannot be seen or removed stays: it
 * takes room, and is in nobody's way.
 */
export async function removeLeftoverPacks(file: string, owner: ProcessIdentity): Promise<void> {
  const dir = dirname(file);
  const names = await readdir(dir).catch(() => []);
  for (const name of names) {
    const path = join(dir, name);
    if (await isLeftover(path, name, owner)) await rm(path, { force: true }).catch(() => undefined);
  }
}

async function isLeftover(path: string, name: string, self: ProcessIdentity): Promise<boolean> {
  const [, pid, startTicks, place] = stagingPattern.exec(name) ?? [];
  if (pid === undefined || startTicks === undefined) return false;
  const found = await lstat(path).catch(() => undefined);
  if (found?.isFile() !== true) return false;
  if (place !== placeOf(self)) return Date.now() - found.mtimeMs > foreignAgeMaxMs;
  return !isAlive({ pid: Number(pid), startTicks: Number(startTicks), bootId: self.bootId });
}

/** Where pids mean the same processes: one boot of one kernel, one PID namespace of it. */
function placeOf({ bootId }: ProcessIdentity): string {
  const namespace = readlinkSync("/proc/self/ns/pid");
  return createHash("sha256").update(`${bootId} ${namespace}`).digest("hex").slice(0, 16);
}
