import type { SnapshotInfo } from "@forkd/api";
import type { SnapshotStore } from "../store/snapshots.ts";
import type { StagedSnapshot } from "./staging.ts";

/**
 * Gives snapshots their names, the base first: all of them, or none. They were verified, so this is
 * renames; a process that dies between two of them leaves the older ones, which are whole.
 */
export async function publishSnapshots(
  store: SnapshotStore,
  staged: readonly StagedSnapshot[],
): Promise<SnapshotInfo[]> {
  const published: SnapshotInfo[] = [];
  try {
    for (const { copy } of staged) published.push(await copy.publish());
    return published;
  } catch (error) {
    const names = staged.slice(0, published.length).map(({ tag }) => tag);
    for (const tag of names.reverse()) await store.remove(tag, "orphan").catch(() => undefined);
    throw error;
  }
}
