import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { ForkdError, limits } from "@forkd/api";
import type { DataPaths } from "../config/data-paths.ts";
import {
  type ImageConfig,
  publishRootImage,
  type RootImage,
  rootfsStagingDir,
} from "../store/rootfs.ts";
import { cacheKey, findCached, rememberImage } from "./cache.ts";
import { bootstrapDebian } from "./debian.ts";
import { makeExt4 } from "./ext4.ts";
import { installExtra } from "./extra.ts";
import { fingerprint } from "./fingerprint.ts";
import { pullImage } from "./oci.ts";
import { plainConfig } from "./oci-config.ts";
import { type ImageRef, parseImageRef, parsePackages } from "./ref.ts";
import { withStaging } from "./staging.ts";
import { copyTree, ensureMountPoints, unpackTar } from "./tree.ts";

export interface BuildRootImageOptions {
  /** One of the forms of {@link parseImageRef}. */
  readonly ref: string;
  /** Packages of the image's distribution to install on top. */
  readonly extra: readonly string[];
  /** Size of the root file system; null takes what the content needs. */
  readonly sizeMib: number | null;
  readonly paths: DataPaths;
  readonly progress: (message: string) => void;
  /** Builds again even when an image from the same inputs is in the store. */
  readonly refresh?: boolean;
  readonly signal?: AbortSignal;
  /** Base of relative paths in `ref`; the process's directory when absent. */
  readonly cwd?: string;
}

/**
 * The read-only root image for a reference: from the store when it was made before from the same
 * source and options, else built. On failure and on abort nothing is left behind.
 *
 * Throws image_invalid, image_not_found, registry_unreachable, tool_missing, disk_full,
 * permission_denied, deadline_exceeded, or the signal's reason.
 */
export async function buildRootImage(options: BuildRootImageOptions): Promise<RootImage> {
  const ref = parseImageRef(options.ref, options.cwd ?? process.cwd());
  const packages = parsePackages(options.extra);
  checkSize(options.sizeMib);
  const source = await fingerprint(ref, options.signal);
  const key = cacheKey({ source, packages, sizeMib: options.sizeMib });
  const cached = options.refresh === true ? undefined : await findCached(options.paths, key);
  if (cached !== undefined) {
    options.progress(`using the image built before (${cached.sha256.slice(0, 12)})`);
    return { ...cached, ref: options.ref };
  }
  requireRoot();
  await mkdir(options.paths.rootfsDir, { recursive: true });
  const parent = rootfsStagingDir(options.paths);
  const image = await withStaging(parent, options.signal, (dir, signal) =>
    build(options, { ref, packages, source, dir, signal }),
  );
  await rememberImage(options.paths, key, image);
  return image;
}

interface Job {
  readonly ref: ImageRef;
  readonly packages: readonly string[];
  readonly source: string;
  readonly dir: string;
  readonly signal: AbortSignal;
}

async function build(options: BuildRootImageOptions, job: Job): Promise<RootImage> {
  const { dir, signal, packages } = job;
  const treeDir = join(dir, "tree");
  const tmpDir = join(dir, "tmp");
  await mkdir(tmpDir);
  const config = await makeTree(options, job, { treeDir, tmpDir });
  await ensureMountPoints(treeDir);
  if (packages.length > 0 && job.ref.kind !== "debian") {
    await installExtra({ treeDir, dir, packages, progress: options.progress, signal });
  }
  options.progress("writing the root image");
  const path = join(dir, "root.img");
  await makeExt4({ treeDir, path, sizeMib: options.sizeMib, signal });
  signal.throwIfAborted();
  return publishRootImage(options.paths, { path, ref: options.ref, config });
}

async function makeTree(
  { progress }: BuildRootImageOptions,
  { ref, packages, source, dir, signal }: Job,
  place: { readonly treeDir: string; readonly tmpDir: string },
): Promise<ImageConfig> {
  switch (ref.kind) {
    case "debian":
      progress(`bootstrapping Debian ${ref.suite}`);
      await bootstrapDebian({ suite: ref.suite, packages, progress, signal, ...place });
      return plainConfig;
    case "tar":
      progress(`unpacking ${ref.file}`);
      await unpackTar(ref.file, { ...place, signal });
      return plainConfig;
    case "dir":
      progress(`copying ${ref.dir}`);
      await copyTree(ref.dir, { ...place, signal });
      return plainConfig;
    case "registry":
    case "oci":
    case "docker-archive": {
      progress("fetching and unpacking the image");
      const digest = source.slice(source.indexOf(":") + 1);
      return pullImage(ref, digest, { ...place, workDir: dir, signal });
    }
  }
}

function checkSize(sizeMib: number | null): void {
  if (sizeMib === null) return;
  if (Number.isInteger(sizeMib) && sizeMib > 0 && sizeMib <= limits.rootfsMaxMib) return;
  throw new ForkdError("image_invalid", `the size of ${sizeMib} MiB is not possible`, {
    hint: `give --size-mib a whole number from 1 to ${limits.rootfsMaxMib}`,
  });
}

/** Files of an image belong to many users, and only root can make such files. */
function requireRoot(): void {
  if (process.getuid?.() === 0) return;
  throw new ForkdError("permission_denied", "only root can build a root image", {
    hint: "run the same command with sudo",
  });
}
