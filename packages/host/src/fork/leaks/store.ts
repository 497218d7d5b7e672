import { rm } from "node:fs/promises";
import { join } from "node:path";
import { findLeftovers, removeTree as removeImageTree } from "../../image/staging.ts";
import { leftoverFiles } from "../../lib/atomic.ts";
import { bootId } from "../../linux/proc.ts";
import { findStaleHotDirs } from "../../store/hot-dir.ts";
import { kernelStagingDir } from "../../store/kernels.ts";
import { layout, writtenDirs } from "../../store/layout.ts";
import { rootfsStagingDir } from "../../store/rootfs.ts";
import { findStaleStagingDirs, removeTree } from "../../store/staging-dirs.ts";
import type { Leak, LeakKind, LeakScope } from "./leak.ts";

const writerGone = "who was writing it is gone";

/** Half-made snapshots, images, kernels and files of processes that died. */
export async function findStaging({ paths }: LeakScope): Promise<Leak[]> {
  const snapshotRoots = [
    paths.snapshotsDir,
    paths.hotDir,
    join(layout.overlaysDir(paths), bootId()),
  ];
  const dirs = await Promise.all(snapshotRoots.map(findStaleStagingDirs));
  const trees = await Promise.all(
    [rootfsStagingDir(paths), kernelStagingDir(paths), layout.pushesDir(paths)].map(findLeftovers),
  );
  const files = await Promise.all(writtenDirs(paths).map(leftoverFiles));
  return [
    ...dirs.flat().map((path) => leak("staging", path, removeTree)),
    ...trees.flat().map((path) => leak("staging", path, removeImageTree)),
    ...files.flat().map((path) => leak("staging", path, (file) => rm(file, { force: true }))),
  ];
}

/** Memory images of data directories that are not there any more. */
export async function findMemoryImages({ paths }: LeakScope): Promise<Leak[]> {
  const stale = await findStaleHotDirs(paths);
  return stale.map((path) => ({
    ...leak("memory_image", path, removeTree),
    why: "its data directory is gone",
  }));
}

function leak(kind: LeakKind, path: string, remove: (path: string) => Promise<void>): Leak {
  return {
    kind,
    what: path,
    why: writerGone,
    fix: async () => {
      await remove(path);
      return "removed it";
    },
  };
}
