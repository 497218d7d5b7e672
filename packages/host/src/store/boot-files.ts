import { access, chmod, mkdir, rename } from "node:fs/promises";
import { dirname, join } from "node:path";
import { syncPath } from "../lib/atomic.ts";
import { initrdsDir, type KernelPaths, kernelFiles, listKernels } from "./kernels.ts";

/**
 * Kernels and initramfs images that came with snapshots of other hosts, named by their content.
 * Nothing boots them by itself: they are kept so that a snapshot can be packed whole again.
 */
export function keptDir(paths: KernelPaths): string {
  return join(paths.kernelsDir, "kept");
}

/** The file with that content, wherever it is among the kernels; undefined when it is nowhere. */
export async function findBootFile(
  paths: KernelPaths,
  sha256: string,
): Promise<string | undefined> {
  const kernels = await listKernels(paths);
  const installed = kernels.flatMap(({ dir, record }) => [
    ...(record.sha256.vmlinuz === sha256 ? [kernelFiles.vmlinuz(dir)] : []),
    ...(record.sha256.vmlinux === sha256 ? [kernelFiles.vmlinux(dir)] : []),
  ]);
  const named = [join(initrdsDir(paths), `${sha256}.img`), join(keptDir(paths), sha256)];
  for (const path of [...installed, ...named]) {
    const isThere = await access(path).then(
      () => true,
      () => false,
    );
    if (isThere) return path;
  }
  return undefined;
}

/** Moves a file of that content, on the same file system, to where it is found. */
export async function keepBootFile(
  paths: KernelPaths,
  staged: string,
  sha256: string,
): Promise<void> {
  const path = join(keptDir(paths), sha256);
  await mkdir(dirname(path), { recursive: true });
  await chmod(staged, 0o444);
  await syncPath(staged);
  await rename(staged, path);
  await syncPath(dirname(path));
}
