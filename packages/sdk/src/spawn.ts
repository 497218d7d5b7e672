import type { IsolationTier, RouteRequest } from "@forkd/api";
import type { CallControl } from "./deadline.ts";

/** How children are forked. Absent means the daemon's default. */
export interface ForkOptions extends CallControl {
  /** How many children, 1 to 1000. Default: 1. */
  readonly n?: number | undefined;
  readonly perChildNetns?: boolean | undefined;
  /** Memory that a child may take from the host, MiB. */
  readonly memoryLimitMib?: number | undefined;
  readonly prewarm?: boolean | undefined;
  readonly liveFork?: boolean | undefined;
  readonly hugepages?: boolean | undefined;
  /** Refuses to run with weaker isolation than this. */
  readonly minIsolation?: IsolationTier | undefined;
}

export interface SpawnOptions extends ForkOptions {
  readonly snapshotTag: string;
}

type CreateSandboxes = RouteRequest<"createSandboxes">;

/** The request's body, with the fields only that are given; n and per_child_netns always. */
export function spawnBody(options: SpawnOptions): CreateSandboxes {
  const { memoryLimitMib, prewarm, liveFork, hugepages, minIsolation } = options;
  return {
    snapshot_tag: options.snapshotTag,
    n: options.n ?? 1,
    per_child_netns: options.perChildNetns ?? false,
    ...(memoryLimitMib !== undefined && { memory_limit_mib: memoryLimitMib }),
    ...(prewarm !== undefined && { prewarm }),
    ...(liveFork !== undefined && { live_fork: liveFork }),
    ...(hugepages !== undefined && { hugepages }),
    ...(minIsolation !== undefined && { min_isolation: minIsolation }),
  };
}
