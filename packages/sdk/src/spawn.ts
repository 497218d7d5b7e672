import type { EgressInput, IsolationTier, RouteRequest } from "@forkd/api";
import type { CallControl } from "./deadline.ts";

/** How children are forked. Absent means the daemon's default. */
export interface ForkOptions extends CallControl {
  /** How many children, 1 to 1000. Default: 1. */
  readonly n?: number | undefined;
  /** A network of its own for each; without, they have none. */
  readonly perChildNetns?: boolean | undefined;
  /** What each may reach by it; nothing when absent. */
  readonly egress?: EgressInput | undefined;
  /** The most of the host's memory that a child may take, MiB. */
  readonly memoryLimitMib?: number | undefined;
  /** Processors' worth of the host's time, such as 0.5. */
  readonly cpuLimit?: number | undefined;
  /** Threads and processes of the host; the guest's own are not seen there. */
  readonly pidsLimit?: number | undefined;
  /** Bytes a second from and to the disk of the data directory. */
  readonly ioReadBps?: number | undefined;
  readonly ioWriteBps?: number | undefined;
  /** Refuses when a limit that is named cannot be enforced. */
  readonly requireLimits?: boolean | undefined;
  /** Refuses a snapshot whose children have no scratch disk of at least this size, MiB. */
  readonly scratchMib?: number | undefined;
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
  const { egress, scratchMib, prewarm, liveFork, hugepages, minIsolation } = options;
  return {
    snapshot_tag: options.snapshotTag,
    n: options.n ?? 1,
    per_child_netns: options.perChildNetns ?? false,
    ...(egress !== undefined && { egress }),
    ...limitsBody(options),
    ...(scratchMib !== undefined && { scratch_mib: scratchMib }),
    ...(prewarm !== undefined && { prewarm }),
    ...(liveFork !== undefined && { live_fork: liveFork }),
    ...(hugepages !== undefined && { hugepages }),
    ...(minIsolation !== undefined && { min_isolation: minIsolation }),
  };
}

function limitsBody(options: ForkOptions): Partial<CreateSandboxes> {
  const { memoryLimitMib, cpuLimit, pidsLimit, ioReadBps, ioWriteBps, requireLimits } = options;
  return {
    ...(memoryLimitMib !== undefined && { memory_limit_mib: memoryLimitMib }),
    ...(cpuLimit !== undefined && { cpu_limit: cpuLimit }),
    ...(pidsLimit !== undefined && { pids_limit: pidsLimit }),
    ...(ioReadBps !== undefined && { io_read_bps: ioReadBps }),
    ...(ioWriteBps !== undefined && { io_write_bps: ioWriteBps }),
    ...(requireLimits !== undefined && { require_limits: requireLimits }),
  };
}
