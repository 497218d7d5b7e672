import type { DataPaths } from "../config/data-paths.ts";
import type { ProcessIdentity } from "../linux/proc.ts";
import type { SnapshotStore } from "../store/snapshots.ts";

/** Where snapshots come from and go to. */
export interface PackHost {
  readonly paths: DataPaths;
  readonly store: SnapshotStore;
  /** This process: its staging directories carry its name. */
  readonly owner: ProcessIdentity;
  /** Of this program, for manifests. */
  readonly forkdVersion: string;
}
