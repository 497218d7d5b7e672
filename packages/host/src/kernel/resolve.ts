import { open, readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { ForkdError } from "@forkd/api";
import type { DataPaths } from "../config/data-paths.ts";
import { isErrno } from "../lib/atomic.ts";
import { sha256File } from "../lib/hash.ts";
import {
  findDefaultKernel,
  type GuestKernel,
  kernelFiles,
  listKernels,
  type StoredKernel,
} from "../store/kernels.ts";
import { isBzImage, parseBzImage } from "./bzimage.ts";
import { isElf } from "./elf.ts";
import { findGuestParts, type GuestParts } from "./guest-parts.ts";
import { ensureInitrd, type Initrd } from "./initrd.ts";

/** What a user brings instead of the installed kernel. */
export interface KernelChoice {
  /** Path of a bzImage or an ELF vmlinux (--kernel, FORKD_KERNEL); null takes the default. */
  readonly vmlinuz?: string | null;
  /** Path of a ready initramfs (--initrd); null takes or builds the one that fits. */
  readonly initrd?: string | null;
  readonly guest?: GuestParts;
}

/**
 * The kernel to boot. Without a choice it is the installed default, with an initramfs of the
 * present agent. A brought kernel gets the modules of an installed kernel of the same release, if
 * there is one; else it must have its virtio drivers built in.
 *
 * Throws kernel_not_found, image_invalid for a file that is no kernel, tool_missing when the agent
 * is not built.
 */
export async function resolveKernel(
  paths: DataPaths,
  choice: KernelChoice = {},
): Promise<GuestKernel> {
  const initrd = choice.initrd ? await readyInitrd(choice.initrd) : undefined;
  if (choice.vmlinuz) return broughtKernel(paths, choice.vmlinuz, { ...choice, ready: initrd });
  const stored = await findDefaultKernel(paths);
  if (stored === undefined) {
    throw new ForkdError("kernel_not_found", `no guest kernel is installed in ${paths.kernelsDir}`);
  }
  if (initrd !== undefined) return withInitrd(stored, initrd);
  return bootableKernel(paths, stored, choice.guest ?? (await findGuestParts()));
}

/** A stored kernel with the initramfs for these guest parts, built when there is none yet. */
export async function bootableKernel(
  paths: DataPaths,
  stored: StoredKernel,
  guest: GuestParts,
): Promise<GuestKernel> {
  return withInitrd(stored, await ensureInitrd(paths, stored, guest));
}

function withInitrd({ dir, record }: StoredKernel, initrd: Initrd): GuestKernel {
  return {
    id: record.id,
    release: record.release,
    vmlinuz: kernelFiles.vmlinuz(dir),
    vmlinux: kernelFiles.vmlinux(dir),
    initrd: initrd.path,
    sha256: { ...record.sha256, initrd: initrd.sha256 },
  };
}

async function readyInitrd(path: string): Promise<Initrd> {
  const absolute = resolve(path);
  return { path: absolute, sha256: await hashGiven(absolute, "initramfs") };
}

interface Brought extends KernelChoice {
  readonly ready: Initrd | undefined;
}

async function broughtKernel(
  paths: DataPaths,
  given: string,
  { ready, guest }: Brought,
): Promise<GuestKernel> {
  const path = resolve(given);
  const sha256 = await hashGiven(path, "kernel");
  const { release, elf } = await inspectKernel(path);
  const stored = await findSameKernel(paths, { sha256, release });
  const initrd =
    ready ?? (await ensureInitrd(paths, stored ?? null, guest ?? (await findGuestParts())));
  return {
    id: `file-${sha256.slice(0, 12)}`,
    release,
    vmlinuz: path,
    vmlinux: elf ? path : null,
    initrd: initrd.path,
    sha256: { vmlinuz: sha256, vmlinux: elf ? sha256 : null, initrd: initrd.sha256 },
  };
}

async function findSameKernel(
  paths: DataPaths,
  kernel: { readonly sha256: string; readonly release: string },
): Promise<StoredKernel | undefined> {
  const stored = await listKernels(paths);
  const same = ({ record }: StoredKernel): boolean =>
    record.sha256.vmlinuz === kernel.sha256 || record.sha256.vmlinux === kernel.sha256;
  return stored.find(same) ?? stored.find(({ record }) => record.release === kernel.release);
}

const headerBytes = 64 * 1024;

async function inspectKernel(path: string): Promise<{ release: string; elf: boolean }> {
  await using handle = await open(path, "r");
  const head = Buffer.alloc(headerBytes);
  const { bytesRead } = await handle.read(head, 0, headerBytes, 0);
  const start = head.subarray(0, bytesRead);
  if (isElf(start)) return { release: await elfRelease(path), elf: true };
  if (isBzImage(start)) return { release: parseBzImage(await readFile(path)).release, elf: false };
  throw new ForkdError("image_invalid", `${path} is neither a bzImage nor an ELF kernel`, {
    hint: "give a vmlinuz or vmlinux file, or install one with: forkd kernel install",
  });
}

/** An uncompressed kernel holds its banner as text. */
async function elfRelease(path: string): Promise<string> {
  const image = await readFile(path);
  const banner = Buffer.from("Linux version ");
  const at = image.indexOf(banner);
  if (at < 0) return "";
  const text = image.toString("latin1", at + banner.length, at + banner.length + 128);
  return /^[A-Za-z0-9._+~-]+/.exec(text)?.[0] ?? "";
}

async function hashGiven(path: string, what: string): Promise<string> {
  try {
    return await sha256File(path);
  } catch (error) {
    if (!isErrno(error, "ENOENT") && !isErrno(error, "EISDIR")) throw error;
    throw new ForkdError("kernel_not_found", `there is no ${what} file ${path}`, { cause: error });
  }
}
