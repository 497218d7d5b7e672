import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, rm, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import type { DataPaths } from "../config/data-paths.ts";
import { isErrno, writeFileAtomic } from "../lib/atomic.ts";
import { initrdsDir, kernelFiles, type StoredKernel } from "../store/kernels.ts";
import { type GuestParts, listRuntimes } from "./guest-parts.ts";
import { buildInitramfs, type InitramfsParts, initramfsFormat } from "./initramfs.ts";

export interface Initrd {
  readonly path: string;
  readonly sha256: string;
}

/** Images kept beside the one in use; a bake that has resolved one still finds it. */
const imagesKeptMax = 8;

/**
 * The initramfs for this kernel's modules and this build of the agent: the stored one when its
 * inputs are the same, else a new one. `kernel` null makes one without modules.
 */
export async function ensureInitrd(
  paths: DataPaths,
  kernel: StoredKernel | null,
  guest: GuestParts,
): Promise<Initrd> {
  const parts = await readParts(kernel, guest);
  const dir = initrdsDir(paths);
  const pointer = join(dir, `inputs-${inputsKey(parts)}`);
  const stored = await findStored(dir, pointer);
  if (stored !== undefined) return stored;
  const image = await buildInitramfs(parts);
  const sha256 = sha256Of(image);
  await mkdir(dir, { recursive: true });
  await writeFileAtomic(imagePath(dir, sha256), image, { mode: 0o444 });
  await writeFileAtomic(pointer, sha256, { mode: 0o644 });
  await prune(dir);
  return { path: imagePath(dir, sha256), sha256 };
}

function imagePath(dir: string, sha256: string): string {
  return join(dir, `${sha256}.img`);
}

async function findStored(dir: string, pointer: string): Promise<Initrd | undefined> {
  try {
    const sha256 = await readFile(pointer, "utf8");
    if (!/^[0-9a-f]{64}$/.test(sha256)) return undefined;
    await stat(imagePath(dir, sha256));
    return { path: imagePath(dir, sha256), sha256 };
  } catch (error) {
    if (isErrno(error, "ENOENT")) return undefined;
    throw error;
  }
}

async function readParts(kernel: StoredKernel | null, guest: GuestParts): Promise<InitramfsParts> {
  const runtimes = await listRuntimes(guest);
  const names = kernel?.record.modules.map(({ name }) => name) ?? [];
  const dir = kernel?.dir ?? "";
  const [agent, modules, sources] = await Promise.all([
    readFile(guest.agent),
    Promise.all(
      names.map(async (name) => ({ name, data: await readFile(kernelFiles.module(dir, name)) })),
    ),
    Promise.all(runtimes.map(async (path) => [basename(path), await readFile(path)] as const)),
  ]);
  return { agent, modules, runtimes: new Map(sources) };
}

function inputsKey(parts: InitramfsParts): string {
  const inputs = [
    initramfsFormat,
    sha256Of(parts.agent),
    parts.modules.map(({ name, data }) => [name, sha256Of(data)]),
    [...parts.runtimes].map(([name, data]) => [name, sha256Of(data)]),
  ];
  return sha256Of(Buffer.from(JSON.stringify(inputs)));
}

function sha256Of(data: Uint8Array): string {
  return createHash("sha256").update(data).digest("hex");
}

/** Removes the oldest images; a pointer to one that is gone only costs a rebuild. */
async function prune(dir: string): Promise<void> {
  const paths = (await readdir(dir))
    .filter((name) => name.endsWith(".img") || name.startsWith("inputs-"))
    .map((name) => join(dir, name));
  const files = await Promise.all(
    paths.map(async (path) => ({ path, mtimeMs: (await stat(path)).mtimeMs })),
  );
  const oldestLast = files.sort((a, b) => b.mtimeMs - a.mtimeMs);
  // Two files an image: itself and the pointer from its inputs.
  await Promise.all(
    oldestLast.slice(2 * imagesKeptMax).map(({ path }) => rm(path, { force: true })),
  );
}
