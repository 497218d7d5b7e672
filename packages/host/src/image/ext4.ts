import { open } from "node:fs/promises";
import { ForkdError } from "@forkd/api";
import { runTool } from "./tools.ts";

const mib = 1024 * 1024;
const blockBytes = 4096;
const inodeBytes = 256;
const measureTimeoutMs = 5 * 60_000;
const makeTimeoutMs = 30 * 60_000;
/** Room for group descriptors, bitmaps and directory blocks that grow; costs nothing, it is a hole. */
const slackBytes = 32 * mib;

export interface TreeSize {
  readonly bytes: number;
  readonly inodes: number;
}

/** Bytes that a file system for this tree needs: generous, because unused blocks stay holes. */
export function planImageBytes({ bytes, inodes }: TreeSize): number {
  const data = bytes + inodes * blockBytes;
  const metadata = planInodes(inodes) * inodeBytes;
  return Math.ceil((data * 1.05 + metadata + slackBytes) / mib) * mib;
}

function planInodes(inodes: number): number {
  return inodes + 1024;
}

async function measureTree(treeDir: string, signal: AbortSignal): Promise<TreeSize> {
  const du = async (...flags: string[]): Promise<number> => {
    const argv = ["du", "--summarize", "--one-file-system", ...flags, "--", treeDir];
    const { stdout } = await runTool(argv, { timeoutMs: measureTimeoutMs, signal });
    return Number.parseInt(stdout, 10);
  };
  return {
    bytes: await du("--apparent-size", "--block-size=1"),
    inodes: await du("--inodes"),
  };
}

export interface MakeImageOptions {
  readonly treeDir: string;
  /** File to make. */
  readonly path: string;
  /** Size of the file system; null takes what the tree needs. */
  readonly sizeMib: number | null;
  /** Files that it has room for beyond what the tree needs; none when absent. */
  readonly spareInodes?: number;
  readonly signal: AbortSignal;
}

/**
 * Makes a sparse ext4 image of a directory, without a journal: it is never written. Throws
 * image_invalid when `sizeMib` is too small.
 */
export async function makeExt4(options: MakeImageOptions): Promise<void> {
  const { treeDir, path, sizeMib, signal } = options;
  const size = await measureTree(treeDir, signal);
  const bytes = sizeMib === null ? planImageBytes(size) : sizeMib * mib;
  const features = ["-O", "^has_journal,^resize_inode,^orphan_file", "-m", "0", "-L", "forkd-root"];
  const inodes = planInodes(size.inodes) + (options.spareInodes ?? 0);
  const layout = ["-b", `${blockBytes}`, "-I", `${inodeBytes}`, "-N", `${inodes}`];
  const extended = ["-E", "lazy_itable_init=1,root_owner=0:0"];
  const argv = ["mkfs.ext4", "-q", "-F", ...features, ...layout, ...extended, "-d", treeDir, path];
  try {
    await runTool([...argv, `${bytes / 1024}k`], { timeoutMs: makeTimeoutMs, signal });
  } catch (error) {
    throw tooSmall(error, sizeMib, planImageBytes(size)) ?? error;
  }
}

export interface EmptyImageOptions {
  /** File to make; there must be none. */
  readonly path: string;
  readonly sizeMib: number;
  readonly label: string;
  readonly signal: AbortSignal;
}

/**
 * Makes a sparse ext4 image that holds nothing, to be written by a guest. Its tables are complete:
 * a guest that is frozen must have nothing left to do on its disk.
 */
export async function makeEmptyExt4(options: EmptyImageOptions): Promise<void> {
  const { path, sizeMib, label, signal } = options;
  await using handle = await open(path, "wx", 0o600);
  await handle.truncate(sizeMib * mib);
  const complete = "lazy_itable_init=0,lazy_journal_init=0,assume_storage_prezeroed=1,nodiscard";
  const argv = ["mkfs.ext4", "-q", "-F", "-m", "0", "-b", `${blockBytes}`, "-L", label];
  await runTool([...argv, "-E", `${complete},root_owner=0:0`, path], {
    timeoutMs: makeTimeoutMs,
    signal,
  });
}

function tooSmall(error: unknown, sizeMib: number | null, needed: number): ForkdError | undefined {
  const words = /Could not allocate (block|inode)|too small|No space left|not enough/i;
  if (sizeMib === null || !(error instanceof ForkdError) || !words.test(error.message)) return;
  // The host's disk being full says the same words, but then the smaller file would not have fit.
  return new ForkdError("image_invalid", `the image does not fit into ${sizeMib} MiB`, {
    hint: `leave --size-mib out, or give at least ${needed / mib}`,
    cause: error,
  });
}
