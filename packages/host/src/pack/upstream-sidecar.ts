import { createReadStream } from "node:fs";
import { access } from "node:fs/promises";
import { dirname, join } from "node:path";
import { pipeline } from "node:stream/promises";
import { limits } from "@forkd/api";
import { startFilter } from "../lib/exec.ts";
import { findRootImage, publishRootImage } from "../store/rootfs.ts";
import type { UnpackScope } from "./scope.ts";
import { unzipArgv } from "./source.ts";
import { writeSparseStream } from "./sparse-writer.ts";
import { invalid } from "./tar-read.ts";
import type { UpstreamManifest } from "./upstream-manifest.ts";

/** The largest root image from a slow disk. */
const sidecarTimeoutMs = 60 * 60_000;
/** Of the hash, in the file's name. */
const nameDigits = 16;

/** Of the file beside a pack that holds the root image with that hash. */
export function sidecarName(sha256: string): string {
  return `${sha256.slice(0, nameDigits)}.rootfs.zst`;
}

/** Nothing is known of how the commands of a bare image run. */
const plainConfig = { env: {}, user: "", workdir: "", cmd: [], entrypoint: [] };

/** The root image that a pack needs: where it is now, and what is to be said of it. */
export interface Sidecar {
  readonly path: string | undefined;
  readonly warnings: readonly string[];
}

/**
 * Takes the root image from the file beside a pack to the shelf of root images, by its hash. A pack
 * that came as a stream has nothing beside it. Throws pack_invalid for another file than the one
 * that the manifest means, disk_full.
 */
export async function takeSidecar(
  scope: UnpackScope,
  { rootfs, tag }: UpstreamManifest,
): Promise<Sidecar> {
  if (rootfs === undefined) return { path: undefined, warnings: [] };
  const { host, order, pages, staging } = scope;
  const { sha256, size } = rootfs;
  const known = await findRootImage(host.paths, sha256);
  if (known !== undefined) return { path: known.path, warnings: [] };
  const name = sidecarName(sha256);
  const file = "file" in order.from ? join(dirname(order.from.file), name) : undefined;
  if (file === undefined || !(await isThere(file))) {
    return { path: undefined, warnings: [`its root image, ${name}, is not beside the pack`] };
  }
  if (size > limits.rootfsMaxMib * 1024 * 1024) throw invalid(`${name} is too large`);
  await staging.requireRoom(size);
  const path = join(await staging.imagesDir(), name);
  await unzip(file, { path, bytes: size });
  if ((await pages.run("hash", { file: path })) !== sha256) {
    throw invalid(`${name} is not the root image of '${tag}'`);
  }
  const staged = { path, ref: `upstream:${tag}`, config: plainConfig };
  return { path: (await publishRootImage(host.paths, staged)).path, warnings: [] };
}

async function isThere(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}

async function unzip(
  file: string,
  to: { readonly path: string; readonly bytes: number },
): Promise<void> {
  const failed = new AbortController();
  const { signal } = failed;
  const zstd = startFilter(unzipArgv, { timeoutMs: sidecarTimeoutMs, signal });
  const works = [
    writeSparseStream(zstd.stdout, to),
    pipeline(createReadStream(file), zstd.stdin, { signal }),
    zstd.ended,
  ];
  try {
    await Promise.all(works);
  } catch (error) {
    failed.abort(error);
    await Promise.allSettled(works);
    throw invalid(`${file} cannot be read: ${error}`, error);
  }
}
