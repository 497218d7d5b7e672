import assert from "node:assert/strict";
import { mkdir, readdir, symlink } from "node:fs/promises";
import { join } from "node:path";
import type { Baked } from "./baked.ts";
import { eventually } from "./eventually.ts";
import { makeTmpDir } from "./tmp.ts";
import { vmmProcesses } from "./vmm-processes.ts";

/** What a test's data directory takes from the shared one, by symbolic links. */
export type Shared = "kernels" | "rootfs" | "cache" | "snapshot";

const everything: readonly Shared[] = ["kernels", "rootfs", "cache", "snapshot"];

export interface DataDir extends AsyncDisposable {
  readonly path: string;
  /** Fails unless no VM, no work and no half-made thing is there. */
  assertNothingLeft(): Promise<void>;
}

/** A data directory of the test's own: what it leaves behind is seen, and goes with it. */
export async function makeDataDir(
  name: string,
  baked: Baked,
  shared: readonly Shared[] = everything,
): Promise<DataDir> {
  const tmp = await makeTmpDir(name);
  const { path } = tmp;
  await mkdir(join(path, "snapshots"), { mode: 0o700 });
  for (const part of shared) {
    const target = part === "snapshot" ? join("snapshots", baked.tag) : part;
    await symlink(join(baked.dataDir, target), join(path, target));
  }
  return {
    path,
    assertNothingLeft: () => assertNothingLeft(path),
    [Symbol.asyncDispose]: () => tmp[Symbol.asyncDispose](),
  };
}

async function assertNothingLeft(dir: string): Promise<void> {
  // The kernel takes a killed process's memory apart before the process is gone from /proc.
  await eventually(() => assert.deepEqual(vmmProcesses(dir), [], "VMs"));
  assert.deepEqual(await names(join(dir, "work")), [], "work directories");
  const snapshots = await names(join(dir, "snapshots"));
  assert.deepEqual(
    snapshots.filter((name) => name.startsWith(".")),
    [],
    "half snapshots",
  );
  assert.deepEqual(await names(join(dir, "rootfs/.staging")), [], "half images");
}

async function names(dir: string): Promise<string[]> {
  return readdir(dir).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return [];
    throw error;
  });
}
