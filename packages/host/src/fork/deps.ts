import type { DataPaths } from "../config/data-paths.ts";
import type { Logger } from "../lib/log.ts";
import type { ProcessIdentity } from "../linux/proc.ts";
import type { SnapshotStore } from "../store/snapshots.ts";
import type { DiskGuard } from "./disk-guard.ts";
import type { Engines } from "./engines.ts";
import type { History } from "./history.ts";
import type { LimitKeeper } from "./limits.ts";
import type { NetKeeper } from "./network.ts";
import type { OnStep } from "./steps.ts";

/** What every part of the domain works with; built once by openForkService. */
export interface ForkDeps {
  readonly paths: DataPaths;
  readonly engines: Engines;
  readonly store: SnapshotStore;
  readonly limits: LimitKeeper;
  readonly network: NetKeeper;
  readonly disks: DiskGuard;
  readonly log: Logger;
  /** Whether sandboxes outlive their owner, and are adopted by the next one. */
  readonly sandboxesOutlive: boolean;
  /** A guest that cannot prove its identity in this time is killed: nobody may talk to it. */
  readonly identityTimeoutMs: number;
  /** The process that owns what this service makes. */
  readonly owner: ProcessIdentity;
  /** The sandboxes that ended; null for an owner whom nobody asks about them. */
  readonly history: History | null;
  /** Told of every step of the journal. */
  readonly onStep: OnStep;
}
