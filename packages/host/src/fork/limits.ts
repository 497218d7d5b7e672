import { basename, dirname, join } from "node:path";
import {
  ForkdError,
  limitNames,
  limits as publicLimits,
  type SandboxId,
  type SandboxLimits,
  type LimitName as WireName,
} from "@forkd/api";
import type { DataPaths } from "../config/data-paths.ts";
import { killCgroup, removeCgroup } from "../linux/cgroup/group.ts";
import { controllerOf, type GroupLimits, type LimitName } from "../linux/cgroup/settings.ts";
import { type CgroupTree, type Enforcement, openCgroupTree } from "../linux/cgroup/tree.ts";
import { type AskedLimits, askedLimits } from "./asked-limits.ts";
import { dataDirHash, dataDirHashPattern } from "./data-dir-hash.ts";
import { claimGroups, removeStaleGroups } from "./stale-groups.ts";

/** A host's verdict on one limit; `reason` is null when it can be enforced. */
export interface LimitSupport {
  readonly limit: WireName;
  readonly controller: string;
  readonly reason: string | null;
}

/** What a sandbox that is made is given. */
export interface LimitedGroup {
  /** cgroup.procs files that the VMM joins before it runs. */
  readonly procsFiles: readonly string[];
  readonly limits: SandboxLimits;
}

const mib = 1024 * 1024;
const treeName = "forkd";

const kernelNames: Readonly<Record<WireName, LimitName>> = {
  memory_limit_mib: "memoryBytes",
  cpu_limit: "cpus",
  pids_limit: "pids",
  io_read_bps: "readBps",
  io_write_bps: "writeBps",
};

/** The groups of one data directory's sandboxes: `forkd/<hash of the directory>/<sandbox id>`. */
export class LimitKeeper {
  readonly #paths: DataPaths;
  #tree: Promise<CgroupTree> | undefined;

  /** Touches no group before it is needed. */
  constructor(paths: DataPaths) {
    this.#paths = paths;
  }

  /** The groups that {@link make} will make: to be written down before. */
  async plan(id: SandboxId, asked: AskedLimits): Promise<string[]> {
    return (await this.#open()).plan(id, groupLimits(asked));
  }

  /**
   * Makes a sandbox's groups with its limits. Throws limit_unavailable when one that is required
   * is not in force; what was made by then is the caller's to release.
   */
  async make(id: SandboxId, asked: AskedLimits): Promise<LimitedGroup> {
    const tree = await this.#open();
    const group = await tree.make(id, groupLimits(asked));
    const limits = describeLimits(asked, group);
    if (asked.required) requireAll(limits);
    return { procsFiles: group.dirs.map((dir) => join(dir, "cgroup.procs")), limits };
  }

  /** What is still in force of the limits of a sandbox that another owner made. */
  async check(id: SandboxId, before: SandboxLimits): Promise<SandboxLimits> {
    const asked = askedOf(before);
    const tree = await this.#open();
    return describeLimits(asked, await tree.check(id, groupLimits(asked)));
  }

  /** What this host can enforce, found out by one trial. */
  async support(): Promise<LimitSupport[]> {
    const tree = await this.#open();
    const refusals = await tree.refusals();
    return limitNames.map((limit) => ({
      limit,
      controller: controllerOf[kernelNames[limit]],
      reason: refusals.get(kernelNames[limit]) ?? null,
    }));
  }

  /** Every group of this data directory that exists, by its name, with its directories. */
  async list(): Promise<ReadonlyMap<string, readonly string[]>> {
    return await (await this.#open()).list();
  }

  /** Removes what data directories that are gone have left; see {@link removeStaleGroups}. */
  async sweep(): Promise<void> {
    await removeStaleGroups(treeName);
  }

  /** Leaves no empty directory of ours. */
  async close(): Promise<void> {
    if (this.#tree !== undefined) await (await this.#tree).close();
  }

  #open(): Promise<CgroupTree> {
    this.#tree ??= this.#claim();
    return this.#tree;
  }

  async #claim(): Promise<CgroupTree> {
    await claimGroups(this.#paths);
    return await openCgroupTree({
      path: [treeName, dataDirHash(this.#paths)],
      ioPath: this.#paths.dataDir,
    });
  }
}

/**
 * Ends whatever is left in a group and removes it. Idempotent. A path that cannot be one of ours is
 * refused: it came from a file.
 */
export async function releaseCgroup(path: string): Promise<void> {
  const parent = dirname(path);
  if (!dataDirHashPattern.test(basename(parent)) || basename(dirname(parent)) !== treeName) {
    throw new ForkdError("internal", `${path} is no control group of forkd's`);
  }
  await killCgroup(path);
  await removeCgroup(path);
}

/** Every VMM has a bound on its threads: nothing that it needs comes near. */
function groupLimits({ values }: AskedLimits): GroupLimits {
  const memoryMib = values.memory_limit_mib;
  return {
    memoryBytes: memoryMib === null ? null : memoryMib * mib,
    cpus: values.cpu_limit,
    pids: values.pids_limit ?? publicLimits.pidsLimitDefault,
    readBps: values.io_read_bps,
    writeBps: values.io_write_bps,
  };
}

function describeLimits({ values }: AskedLimits, group: Enforcement): SandboxLimits {
  const { inForce, refused } = group;
  const notInForce = limitNames.flatMap((limit) => {
    const reason = refused.find((refusal) => refusal.limit === kernelNames[limit])?.reason;
    const asked = values[limit];
    return reason === undefined || asked === null ? [] : [{ limit, asked, reason }];
  });
  return {
    memory_limit_mib: inForce.memoryBytes === null ? null : inForce.memoryBytes / mib,
    cpu_limit: inForce.cpus,
    pids_limit: inForce.pids,
    io_read_bps: inForce.readBps,
    io_write_bps: inForce.writeBps,
    not_in_force: notInForce,
  };
}

/** What had been asked for: what was in force then, and what was not. */
function askedOf(limits: SandboxLimits): AskedLimits {
  const missing = limits.not_in_force.map(({ limit, asked }) => [limit, asked] as const);
  return askedLimits({ ...limits, ...Object.fromEntries(missing) });
}

function requireAll({ not_in_force: missing }: SandboxLimits): void {
  const [first] = missing;
  if (first === undefined) return;
  const message = `${first.limit} ${first.asked} cannot be enforced: ${first.reason}`;
  throw new ForkdError("limit_unavailable", message);
}
