import { statfs } from "node:fs/promises";
import type { DataPaths } from "../config/data-paths.ts";
import type { StorageFacts } from "./service.ts";

/** The file system of the snapshots; of the data directory while there is no snapshot yet. */
export async function storageFacts({ dataDir, snapshotsDir }: DataPaths): Promise<StorageFacts> {
  const { bavail, blocks, bsize } = await statfs(snapshotsDir).catch(() => statfs(dataDir));
  return { dataDir, snapshotsDir, freeBytes: bavail * bsize, totalBytes: blocks * bsize };
}
