import { createHash } from "node:crypto";
import { copyFile, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { ForkdError } from "@forkd/api";
import type { DataPaths } from "../config/data-paths.ts";
import { withStaging } from "../image/staging.ts";
import { run } from "../lib/exec.ts";
import {
  type GuestKernel,
  type KernelRecord,
  kernelFiles,
  kernelStagingDir,
  listKernels,
  publishKernel,
  type StoredKernel,
} from "../store/kernels.ts";
import { downloadPackages, findKernelPackages, metaPackageFor, updateLists } from "./apt.ts";
import { extractVmlinux, parseBzImage } from "./bzimage.ts";
import { findGuestParts, type GuestParts } from "./guest-parts.ts";
import { collectModules, guestModules, type KernelModule } from "./modules.ts";
import { bootableKernel } from "./resolve.ts";

export interface InstallKernelOptions {
  readonly paths: DataPaths;
  readonly progress: (message: string) => void;
  readonly signal?: AbortSignal;
  /** Package files to take instead of the distribution's newest. */
  readonly source?: readonly string[];
  /** The agent and runtimes for the initramfs; found by {@link findGuestParts} when absent. */
  readonly guest?: GuestParts;
}

/**
 * Takes the distribution's kernel for virtual machines through apt, without installing it on the
 * host, and makes it the default guest kernel. Quick when that version is there already.
 *
 * Throws kernel_not_found (unknown distribution or processor), registry_unreachable, tool_missing,
 * disk_full; nothing is left behind then.
 */
export async function installKernel(options: InstallKernelOptions): Promise<GuestKernel> {
  if (process.arch !== "x64") {
    throw new ForkdError("kernel_not_found", `guest kernels for ${process.arch} are not supported`);
  }
  const stored = await installStored(options);
  options.progress("building the initramfs");
  return bootableKernel(options.paths, stored, options.guest ?? (await findGuestParts()));
}

async function installStored(options: InstallKernelOptions): Promise<StoredKernel> {
  const { paths, progress } = options;
  const packages = options.source === undefined ? await choosePackages(options) : null;
  const origin = (packages ?? options.source ?? []).join(" ");
  const present = (await listKernels(paths)).find(
    ({ record }) => record.origin === origin && record.wanted.join() === guestModules.join(),
  );
  if (present !== undefined && packages !== null) {
    progress(`kernel ${present.record.release} is installed already`);
    return present;
  }
  return withStaging(kernelStagingDir(paths), options.signal, async (staging, signal) => {
    await mkdir(join(staging, "packages"));
    await mkdir(join(staging, "tree"));
    await mkdir(join(staging, "kernel"), { mode: 0o755 });
    const files =
      packages === null ? (options.source ?? []) : await download(options, packages, staging);
    return storeKernel({ ...options, signal }, { staging, files, origin });
  });
}

/** "name=version" of each package to take. */
async function choosePackages({ progress, signal }: InstallKernelOptions): Promise<string[]> {
  const meta = metaPackageFor(await readFile("/etc/os-release", "utf8"));
  const known = await findKernelPackages(meta);
  if (known.length > 0) return known;
  progress("fetching apt's package lists");
  await updateLists(signal);
  const packages = await findKernelPackages(meta);
  if (packages.length > 0) return packages;
  throw new ForkdError("kernel_not_found", `apt knows no package behind ${meta}`, {
    hint: "run: apt-get update",
  });
}

async function download(
  { progress, signal }: InstallKernelOptions,
  packages: readonly string[],
  staging: string,
): Promise<string[]> {
  progress(`downloading ${packages.join(", ")}`);
  return downloadPackages(packages, join(staging, "packages"), signal);
}

interface Unpacked {
  readonly staging: string;
  readonly files: readonly string[];
  readonly origin: string;
}

async function storeKernel(
  { paths, progress, signal }: InstallKernelOptions,
  { staging, files, origin }: Unpacked,
): Promise<StoredKernel> {
  const tree = join(staging, "tree");
  for (const file of files) {
    await run(["dpkg-deb", "--extract", file, tree], { ...(signal && { signal }) });
  }
  const image = await findImage(tree);
  progress("extracting the kernel and its modules");
  const vmlinux = await extractVmlinux(image, staging);
  const release = parseBzImage(await readFile(image)).release;
  const modules = await collectModules(await findModulesDir(tree, release));
  const dir = join(staging, "kernel");
  await copyFile(image, kernelFiles.vmlinuz(dir));
  await writeFile(kernelFiles.vmlinux(dir), vmlinux, { mode: 0o644 });
  for (const { name, data } of modules) await writeFile(kernelFiles.module(dir, name), data);
  const bytes = { vmlinuz: await readFile(image), vmlinux };
  return publishKernel(paths, dir, makeRecord({ release, origin, modules, ...bytes }));
}

interface RecordParts {
  readonly release: string;
  readonly origin: string;
  readonly modules: readonly KernelModule[];
  readonly vmlinuz: Buffer;
  readonly vmlinux: Buffer;
}

function makeRecord({ release, origin, modules, vmlinuz, vmlinux }: RecordParts): KernelRecord {
  const sha256 = { vmlinuz: sha256Of(vmlinuz), vmlinux: sha256Of(vmlinux) };
  const listed = modules.map(({ name, data }) => ({ name, sha256: sha256Of(data) }));
  // The same kernel with other modules, after a change of what the guest needs, is another one.
  const content = sha256Of(Buffer.from(JSON.stringify([sha256, listed])));
  return {
    format: 1,
    id: `${release}-${content.slice(0, 12)}`,
    release,
    origin,
    installed_at_unix: Math.floor(Date.now() / 1000),
    wanted: guestModules,
    sha256,
    modules: listed,
  };
}

async function findImage(tree: string): Promise<string> {
  const boot = join(tree, "boot");
  const names = await readdir(boot).catch((): string[] => []);
  const image = names.find((name) => name.startsWith("vmlinuz-"));
  if (image !== undefined) return join(boot, image);
  throw new ForkdError("image_invalid", "the kernel package holds no boot/vmlinuz");
}

/** Newer packages keep their files under usr/lib. */
async function findModulesDir(tree: string, release: string): Promise<string> {
  for (const lib of ["lib/modules", "usr/lib/modules"]) {
    const names = await readdir(join(tree, lib)).catch((): string[] => []);
    if (names.includes(release)) return join(tree, lib, release);
  }
  throw new ForkdError("image_invalid", `the kernel package holds no modules for ${release}`);
}

function sha256Of(data: Uint8Array): string {
  return createHash("sha256").update(data).digest("hex");
}
