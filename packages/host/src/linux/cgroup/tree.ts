import { randomBytes } from "node:crypto";
import { mkdir, readdir, rmdir } from "node:fs/promises";
import { join } from "node:path";
import { isErrno } from "../../lib/atomic.ts";
import { findProcess } from "../proc.ts";
import { type Bases, prepareBases } from "./bases.ts";
import { blockDeviceOf } from "./block-device.ts";
import { applyLimit, checkLimit, type Refusal, removeCgroup, wordsOf } from "./group.ts";
import { readHierarchies } from "./hierarchies.ts";
import {
  type Controller,
  controllerOf,
  type GroupLimits,
  type LimitName,
  limitNames,
  type PlanContext,
  planLimit,
} from "./settings.ts";

export interface TreeOptions {
  /** Names of the groups above ours, from the top on; equal for every owner of one directory. */
  readonly path: readonly string[];
  /** A path on the disk that io limits are about. */
  readonly ioPath: string;
}

/** What the kernel agreed to. */
export interface Enforcement {
  /** The limits that were asked for and read back. */
  readonly inForce: GroupLimits;
  /** The limits that were asked for and are not in force. */
  readonly refused: readonly (Refusal & { readonly limit: LimitName })[];
}

export interface MadeGroup extends Enforcement {
  /** The group's directories, one a hierarchy, that exist now. */
  readonly dirs: readonly string[];
}

export const unlimited: GroupLimits = {
  memoryBytes: null,
  cpus: null,
  pids: null,
  readBps: null,
  writeBps: null,
};

/** What the trial at the start asks for: any real host can give it. */
const trialLimits: GroupLimits = {
  memoryBytes: 1024 * 1024 * 1024,
  cpus: 1,
  pids: 1024,
  readBps: 1024 * 1024 * 1024,
  writeBps: 1024 * 1024 * 1024,
};

/**
 * Every group of a tree has these even if no limit needs them: memory tells who was killed for want
 * of it, pids costs nothing.
 */
const alwaysJoined: readonly Controller[] = ["memory", "pids"];
const trialPattern = /^trial-(\d+)-/;

/** Makes the groups above ours. What cannot be had is a reason of `make`, never thrown. */
export async function openCgroupTree(options: TreeOptions): Promise<CgroupTree> {
  const device = await blockDeviceOf(options.ioPath).catch((error: unknown) => ({
    reason: wordsOf(error),
  }));
  return new CgroupTree(options, device, await findBases(options));
}

/** The control groups below one name, in whatever hierarchies this host has. */
export class CgroupTree {
  readonly #options: TreeOptions;
  readonly #device: string | Refusal;
  #bases: Bases;
  #trial: Promise<ReadonlyMap<LimitName, string>> | undefined;

  constructor(options: TreeOptions, device: string | Refusal, bases: Bases) {
    this.#options = options;
    this.#device = device;
    this.#bases = bases;
  }

  /** Why limits cannot be enforced on this host, found out by one trial; those that can are not in. */
  refusals(): Promise<ReadonlyMap<LimitName, string>> {
    this.#trial ??= this.#try();
    return this.#trial;
  }

  async #try(): Promise<ReadonlyMap<LimitName, string>> {
    const name = `trial-${process.pid}-${randomBytes(4).toString("hex")}`;
    const { dirs, refused } = await this.make(name, trialLimits);
    for (const dir of dirs) await removeCgroup(dir);
    return new Map(refused.map(({ limit, reason }) => [limit, reason]));
  }

  /** The directories that {@link make} will try to make: to be written down before it is called. */
  plan(name: string, limits: GroupLimits): string[] {
    const wanted = new Set(alwaysJoined);
    for (const limit of limitNames) {
      if (limits[limit] !== null) wanted.add(controllerOf[limit]);
    }
    return this.#bases.bases
      .filter((base) => base.controllers.some((controller) => wanted.has(controller)))
      .map((base) => join(base.dir, name));
  }

  /**
   * Makes a group and sets its limits. Each is read back; one that is not in force has a reason,
   * and nothing is thrown.
   */
  async make(name: string, limits: GroupLimits): Promise<MadeGroup> {
    const made = await this.#mkdirs(this.plan(name, limits));
    return { dirs: made.dirs, ...(await this.#settle(name, limits, { ...made, apply: true })) };
  }

  /** What is in force in a group that was made before. */
  async check(name: string, limits: GroupLimits): Promise<Enforcement> {
    const nothing = { failures: new Map<string, string>(), apply: false };
    return await this.#settle(name, limits, nothing);
  }

  async #mkdirs(plan: readonly string[]) {
    const failures = new Map<string, string>();
    const make = async (dir: string, mayRepair: boolean): Promise<void> => {
      try {
        await mkdir(dir);
      } catch (error) {
        if (isErrno(error, "EEXIST")) return;
        if (!isErrno(error, "ENOENT") || !mayRepair) {
          failures.set(dir, wordsOf(error));
          return;
        }
        // Another owner of the tree has closed it while it was empty.
        this.#bases = await findBases(this.#options);
        await make(dir, false);
      }
    };
    for (const dir of plan) await make(dir, true);
    return { dirs: plan.filter((dir) => !failures.has(dir)), failures };
  }

  async #settle(
    name: string,
    limits: GroupLimits,
    how: { readonly failures: ReadonlyMap<string, string>; readonly apply: boolean },
  ): Promise<Enforcement> {
    const inForce: Record<LimitName, number | null> = { ...unlimited };
    const refused: (Refusal & { limit: LimitName })[] = [];
    for (const limit of limitNames) {
      const value = limits[limit];
      if (value === null) continue;
      const refusal = await this.#settleOne({ name, limit, value, ...how });
      if (refusal === undefined) inForce[limit] = value;
      else refused.push({ limit, reason: refusal.reason });
    }
    return { inForce, refused };
  }

  async #settleOne(order: {
    readonly name: string;
    readonly limit: LimitName;
    readonly value: number;
    readonly failures: ReadonlyMap<string, string>;
    readonly apply: boolean;
  }): Promise<Refusal | undefined> {
    const { limit, value } = order;
    const controller = controllerOf[limit];
    const base = this.#bases.bases.find((candidate) => candidate.controllers.includes(controller));
    if (base === undefined) {
      return { reason: this.#bases.reasons.get(controller) ?? `no ${controller} controller` };
    }
    if (controller === "io" && typeof this.#device !== "string") return this.#device;
    const device = typeof this.#device === "string" ? this.#device : "";
    const context: PlanContext = { version: base.version, device };
    const plan = planLimit(limit, value, context);
    if ("reason" in plan) return plan;
    const dir = join(base.dir, order.name);
    const failure = order.failures.get(dir);
    if (failure !== undefined) return { reason: failure };
    return await (order.apply ? applyLimit(dir, plan) : checkLimit(dir, plan));
  }

  /** Every group of the tree that exists, by name: its directories. Trials of the living are not. */
  async list(): Promise<Map<string, string[]>> {
    const found = new Map<string, string[]>();
    for (const { dir } of this.#bases.bases) {
      for (const name of await groupsIn(dir)) {
        found.set(name, [...(found.get(name) ?? []), join(dir, name)]);
      }
    }
    return found;
  }

  /** Removes the tree's own directories if no group is left in them. */
  async close(): Promise<void> {
    for (const { dir } of this.#bases.bases) await rmdir(dir).catch(() => undefined);
  }
}

async function findBases({ path }: TreeOptions): Promise<Bases> {
  return await prepareBases(await readHierarchies(), path);
}

async function groupsIn(dir: string): Promise<string[]> {
  const entries = await readdir(dir, { withFileTypes: true }).catch((error: unknown) => {
    if (isErrno(error, "ENOENT")) return [];
    throw error;
  });
  return entries
    .filter((entry) => entry.isDirectory() && !isLiveTrial(entry.name))
    .map(({ name }) => name);
}

function isLiveTrial(name: string): boolean {
  const pid = trialPattern.exec(name)?.[1];
  return pid !== undefined && findProcess(Number(pid)) !== undefined;
}
