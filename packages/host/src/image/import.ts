import { stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { ForkdError } from "@forkd/api";
import { run } from "../lib/exec.ts";
import {
  publishRootImage,
  type RootfsPaths,
  type RootImage,
  rootfsStagingDir,
} from "../store/rootfs.ts";
import { withStaging } from "./staging.ts";

/** Nothing is known of how the commands of a bare file system run. */
const plainConfig = { env: {}, user: "", workdir: "", cmd: [], entrypoint: [] };

/**
 * Copies a file system image into the store, where nobody changes it under its children. Throws
 * image_not_found, image_invalid, disk_full.
 */
export async function importRootImage(
  paths: RootfsPaths,
  path: string,
  abort: AbortSignal,
): Promise<RootImage> {
  await requireImageFile(path);
  return withStaging(rootfsStagingDir(paths), abort, async (dir, signal) => {
    const staged = join(dir, "root.img");
    await run(["cp", "--sparse=always", "--reflink=auto", "--", path, staged], { signal });
    return publishRootImage(paths, { path: staged, ref: basename(path), config: plainConfig });
  });
}

async function requireImageFile(path: string): Promise<void> {
  const stats = await stat(path).catch((error: unknown) => {
    throw new ForkdError("image_not_found", `there is no root image ${path}`, {
      hint: "give --rootfs the path of an ext4, erofs or squashfs image",
      cause: error,
    });
  });
  if (stats.isFile() && stats.size > 0) return;
  throw new ForkdError("image_invalid", `${path} is not a file system image`, {
    hint: "for a directory, use: forkd from-image dir:DIR --tag TAG",
  });
}
