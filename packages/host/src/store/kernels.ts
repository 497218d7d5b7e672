import { readdir, readFile, rename } from "node:fs/promises";
import { dirname, join } from "node:path";
import { ForkdError } from "@forkd/api";
import { isErrno, publishDir, writeFileAtomic } from "../lib/atomic.ts";

/** The part of the data paths that this store needs. */
export interface KernelPaths {
  readonly kernelsDir: string;
}

/** A kernel with an initramfs that fits it, ready to boot. Paths are absolute. */
export interface GuestKernel {
  readonly id: string;
  readonly release: string;
  /** What QEMU boots: a bzImage, or an ELF kernel that the user brought. */
  readonly vmlinuz: string;
  /** Uncompressed ELF for Firecracker, null when it is not known. */
  readonly vmlinux: string | null;
  readonly initrd: string;
  readonly sha256: {
    readonly vmlinuz: string;
    readonly vmlinux: string | null;
    readonly initrd: string;
  };
}

/** `kernel.json` in a kernel's directory. */
export interface KernelRecord {
  readonly format: 1;
  readonly id: string;
  readonly release: string;
  /** Distribution package and version that it came from, for example "name=1.2-3". */
  readonly origin: string;
  readonly installed_at_unix: number;
  /** What was looked for when the modules were chosen; not all exist in every kernel. */
  readonly wanted: readonly string[];
  readonly sha256: { readonly vmlinuz: string; readonly vmlinux: string };
  /** Modules of the initramfs, in load order; files beside the record are named after them. */
  readonly modules: readonly { readonly name: string; readonly sha256: string }[];
}

export interface StoredKernel {
  readonly dir: string;
  readonly record: KernelRecord;
}

const idPattern = /^[A-Za-z0-9][A-Za-z0-9._+~-]{0,190}$/;
const sha256Pattern = /^[0-9a-f]{64}$/;
const moduleNamePattern = /^\w{1,64}$/;
const recordBytesMax = 256 * 1024;

/** Paths inside one kernel's directory. */
export const kernelFiles = {
  record: (dir: string): string => join(dir, "kernel.json"),
  vmlinuz: (dir: string): string => join(dir, "vmlinuz"),
  vmlinux: (dir: string): string => join(dir, "vmlinux"),
  module: (dir: string, name: string): string => join(dir, `${name}.ko`),
} as const;

/** Directory of the initramfs images, which are named by their content. */
export function initrdsDir(paths: KernelPaths): string {
  return join(paths.kernelsDir, "initrds");
}

/** Where staging directories of kernel installs live, on the file system of the store. */
export function kernelStagingDir(paths: KernelPaths): string {
  return join(paths.kernelsDir, ".staging");
}

function defaultPointer(paths: KernelPaths): string {
  return join(paths.kernelsDir, "default");
}

/** Every complete kernel, by id. A directory whose record cannot be read is left out. */
export async function listKernels(paths: KernelPaths): Promise<StoredKernel[]> {
  const names = await readdir(paths.kernelsDir).catch((error: unknown) => {
    if (isErrno(error, "ENOENT")) return [];
    throw error;
  });
  const kernels = await Promise.all(names.sort().map((name) => findKernel(paths, name)));
  return kernels.filter((kernel) => kernel !== undefined);
}

/** Undefined when there is no such kernel or its record is broken. */
export async function findKernel(
  paths: KernelPaths,
  id: string,
): Promise<StoredKernel | undefined> {
  if (!idPattern.test(id)) return undefined;
  const dir = join(paths.kernelsDir, id);
  try {
    const text = await readFile(kernelFiles.record(dir), "utf8");
    const record = text.length > recordBytesMax ? undefined : parseRecord(JSON.parse(text));
    return record?.id === id ? { dir, record } : undefined;
  } catch {
    return undefined;
  }
}

/** The kernel that boots when nobody names another; undefined when none is installed. */
export async function findDefaultKernel(paths: KernelPaths): Promise<StoredKernel | undefined> {
  try {
    return await findKernel(paths, (await readFile(defaultPointer(paths), "utf8")).trim());
  } catch (error) {
    if (isErrno(error, "ENOENT")) return undefined;
    throw error;
  }
}

/** {@link findKernel} that throws kernel_not_found. */
export async function loadKernel(paths: KernelPaths, id: string): Promise<StoredKernel> {
  const kernel = await findKernel(paths, id);
  if (kernel !== undefined) return kernel;
  throw new ForkdError("kernel_not_found", `there is no guest kernel "${id}"`);
}

/**
 * Makes a staged directory the kernel of its record and the default. A kernel of the same id is the
 * same by content and is kept; one whose record is broken is moved beside the staged directory,
 * whose parent the caller removes.
 */
export async function publishKernel(
  paths: KernelPaths,
  staging: string,
  record: KernelRecord,
): Promise<StoredKernel> {
  await writeFileAtomic(kernelFiles.record(staging), `${JSON.stringify(record, null, 2)}\n`, {
    mode: 0o644,
  });
  if ((await findKernel(paths, record.id)) === undefined) {
    const target = join(paths.kernelsDir, record.id);
    await rename(target, join(dirname(staging), "broken")).catch((error: unknown) => {
      if (!isErrno(error, "ENOENT")) throw error;
    });
    await publishDir(staging, target);
  }
  await writeFileAtomic(defaultPointer(paths), `${record.id}\n`, { mode: 0o644 });
  return loadKernel(paths, record.id);
}

/** Undefined for anything that is not a record of a format that we know. */
function parseRecord(value: unknown): KernelRecord | undefined {
  if (!isRecordShape(value) || value.format !== 1) return undefined;
  const hashes = [
    value.sha256.vmlinuz,
    value.sha256.vmlinux,
    ...value.modules.map((m) => m.sha256),
  ];
  const namesAreSafe =
    idPattern.test(value.id) && value.modules.every((m) => moduleNamePattern.test(m.name));
  return namesAreSafe && hashes.every((hash) => sha256Pattern.test(hash)) ? value : undefined;
}

function isRecordShape(value: unknown): value is KernelRecord {
  return (
    isObject(value) &&
    typeof value["id"] === "string" &&
    typeof value["release"] === "string" &&
    typeof value["origin"] === "string" &&
    typeof value["installed_at_unix"] === "number" &&
    isObject(value["sha256"]) &&
    typeof value["sha256"]["vmlinuz"] === "string" &&
    typeof value["sha256"]["vmlinux"] === "string" &&
    Array.isArray(value["wanted"]) &&
    Array.isArray(value["modules"]) &&
    value["modules"].every(
      (module: unknown) =>
        isObject(module) &&
        typeof module["name"] === "string" &&
        typeof module["sha256"] === "string",
    )
  );
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
