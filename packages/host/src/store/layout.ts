import { join } from "node:path";
import type { SnapshotTag } from "@forkd/api";
import type { DataPaths } from "../config/data-paths.ts";

/** Names inside a snapshot's directory; docs/store-format.md specifies them. */
export const snapshotFiles = {
  manifest: "snapshot.json",
  vmstate: "vmstate",
  memory: "memory.bin",
  diff: "memory.diff",
  index: "memory.index",
} as const;

/** The layer at a place of a scratch disk's chain, the oldest at 0. */
export function scratchLayerFile(place: number): string {
  return `scratch.${place}`;
}

/** Names of scratch layers, and of nothing else in a snapshot's directory. */
export const scratchLayerPattern: RegExp = /^scratch\.\d{1,3}$/;

/** The only place that joins a tag into a path: its type says that it was validated. */
export const layout = {
  snapshotDir: (paths: DataPaths, tag: SnapshotTag): string => join(paths.snapshotsDir, tag),
  rootImage: (paths: DataPaths, sha256: string): string => join(paths.rootfsDir, `${sha256}.img`),
  stateFile: (paths: DataPaths): string => join(paths.dataDir, "state.json"),
  /** What is remembered of sandboxes that ended. */
  endedDir: (paths: DataPaths): string => join(paths.dataDir, "ended"),
  /** What could not be understood, moved out of the way. */
  quarantineDir: (paths: DataPaths): string => join(paths.dataDir, "quarantine"),
  daemonLock: (paths: DataPaths): string => join(paths.dataDir, "daemon.lock"),
  /** What is known of the bytes of each layer, by the hash of its manifest. */
  verifiedDir: (paths: DataPaths): string => join(paths.cacheDir, "verified"),
  /** Downloads that stopped and may go on. */
  pullsDir: (paths: DataPaths): string => join(paths.cacheDir, "pulls"),
  /** Packs on their way to a remote. */
  pushesDir: (paths: DataPaths): string => join(paths.cacheDir, "pushes"),
  /** Which uploads stopped and may go on. */
  uploadsDir: (paths: DataPaths): string => join(paths.cacheDir, "uploads"),
  /** Indexes of hubs. */
  hubsDir: (paths: DataPaths): string => join(paths.cacheDir, "hubs"),
  /** Images of chains that do not fit into memory. */
  overlaysDir: (paths: DataPaths): string => join(paths.cacheDir, "overlays"),
};

/** Directories whose files are replaced one by one: a process that dies may leave half of one. */
export function writtenDirs(paths: DataPaths): string[] {
  const { dataDir, cacheDir, kernelsDir, hotDir } = paths;
  const { endedDir, verifiedDir, pullsDir, uploadsDir, hubsDir } = layout;
  const named = [endedDir, verifiedDir, pullsDir, uploadsDir, hubsDir].map((dir) => dir(paths));
  return [dataDir, cacheDir, kernelsDir, hotDir, ...named];
}
