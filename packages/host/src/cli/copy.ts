import { randomBytes } from "node:crypto";
import { createReadStream, createWriteStream } from "node:fs";
import { mkdir, readdir, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join, posix } from "node:path";
import type { Readable, Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { type FileInfo, ForkdError } from "@forkd/api";
import type { SandboxFiles } from "@forkd/sdk";

/** Directories in directories that a copy goes down: a guest can make a tree without an end. */
const copyDepthMax = 256;
const permissionBits = 0o777;

/** One copy between this host and a sandbox. */
export interface Copy {
  readonly files: SandboxFiles;
  /** Directories with all that is in them. */
  readonly recursive: boolean;
  readonly user: string | undefined;
  readonly signal: AbortSignal;
  /** Told what is left out, and why. */
  readonly warn: (text: string) => void;
}

/** Files and bytes that were copied. */
export interface Copied {
  files: number;
  bytes: number;
}

/** Writes a stream to a path of the guest, whole or not at all. */
export async function uploadStream(copy: Copy, from: Readable, to: string): Promise<Copied> {
  const { size_bytes: bytes } = await copy.files.write(to, from, controlOf(copy));
  return { files: 1, bytes };
}

/** Writes a file of the guest to a stream, which stays open. */
export async function downloadStream(copy: Copy, from: string, to: Writable): Promise<Copied> {
  const reading = await copy.files.read(from, controlOf(copy));
  const bytes = { count: 0 };
  await pipeline(counted(reading, bytes), to, { end: false, signal: copy.signal });
  return { files: 1, bytes: bytes.count };
}

/** Copies a file or directory of this host into the guest; into `to` when that is a directory. */
export async function upload(copy: Copy, from: string, to: string): Promise<Copied> {
  const target = (await isGuestDirectory(copy, to)) ? posix.join(to, basename(from)) : to;
  const copied = { files: 0, bytes: 0 };
  await uploadTree(copy, { from, to: target, depth: 0 }, copied);
  return copied;
}

/** Copies a file or directory of the guest to this host; into `to` when that is a directory. */
export async function download(copy: Copy, from: string, to: string): Promise<Copied> {
  const info = await copy.files.stat(from, { ...controlOf(copy), follow: true });
  const isInto = (await stat(to).catch(() => undefined))?.isDirectory() === true;
  const target = isInto ? join(to, posix.basename(from)) : to;
  const copied = { files: 0, bytes: 0 };
  await downloadTree(copy, { info, from, to: target, depth: 0 }, copied);
  return copied;
}

interface Step {
  readonly from: string;
  readonly to: string;
  readonly depth: number;
}

async function uploadTree(copy: Copy, step: Step, copied: Copied): Promise<void> {
  const { from, to } = step;
  const facts = await stat(from);
  const mode = facts.mode & permissionBits;
  if (facts.isFile()) {
    const options = { ...controlOf(copy), mode };
    const { size_bytes } = await copy.files.write(to, createReadStream(from), options);
    copied.files += 1;
    copied.bytes += size_bytes;
    return;
  }
  if (!facts.isDirectory()) throw new ForkdError("not_a_file", `${from} is not a regular file`);
  requireTree(copy, step);
  await copy.files.mkdir(to, { ...controlOf(copy), mode, parents: true });
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const path = join(from, entry.name);
    const next = { from: path, to: posix.join(to, entry.name), depth: step.depth + 1 };
    if (entry.isFile() || entry.isDirectory()) await uploadTree(copy, next, copied);
    else copy.warn(`left out ${path}: neither a file nor a directory`);
  }
}

async function downloadTree(
  copy: Copy,
  step: Step & { readonly info: FileInfo },
  copied: Copied,
): Promise<void> {
  const { info, from, to } = step;
  if (info.type !== "directory") {
    copied.bytes += await downloadFile(copy, { from, to, info });
    copied.files += 1;
    return;
  }
  requireTree(copy, step);
  await mkdir(to, { recursive: true });
  const { entries, truncated } = await copy.files.list(from, controlOf(copy));
  if (truncated) throw new ForkdError("payload_too_large", `${from} has too many entries`);
  for (const entry of entries) {
    const path = posix.join(from, entry.name);
    const isPlain = entry.type === "file" || entry.type === "directory";
    if (!isPlain || !isSafeName(entry)) {
      copy.warn(`left out ${path}: ${isPlain ? "its name is not text" : entry.type}`);
      continue;
    }
    const next = { from: path, to: join(to, entry.name), depth: step.depth + 1, info: entry };
    await downloadTree(copy, next, copied);
  }
}

/** A guest's name becomes one on this host only when it cannot lead anywhere else. */
function isSafeName({ name, name_b64 }: FileInfo): boolean {
  return name_b64 === undefined && !/[/\0]/.test(name) && !["", ".", ".."].includes(name);
}

/** By a file of another name, so that a cut copy is never taken for the file. Returns its bytes. */
async function downloadFile(
  copy: Copy,
  { from, to, info }: { readonly from: string; readonly to: string; readonly info: FileInfo },
): Promise<number> {
  const reading = await copy.files.read(from, controlOf(copy));
  const draft = join(dirname(to), `.forkd-cp-${randomBytes(8).toString("hex")}.tmp`);
  const mode = Number.parseInt(info.mode, 8) & permissionBits;
  const bytes = { count: 0 };
  try {
    const file = createWriteStream(draft, { flags: "wx", mode });
    await pipeline(counted(reading, bytes), file, { signal: copy.signal });
    await rename(draft, to);
  } finally {
    await rm(draft, { force: true });
  }
  return bytes.count;
}

async function* counted(
  source: AsyncIterable<Uint8Array>,
  bytes: { count: number },
): AsyncGenerator<Uint8Array> {
  for await (const chunk of source) {
    bytes.count += chunk.byteLength;
    yield chunk;
  }
}

function requireTree({ recursive }: Copy, { from, depth }: Step): void {
  if (!recursive) {
    throw new ForkdError("is_a_directory", `${from} is a directory`, {
      hint: "add -r to copy it with all that is in it",
    });
  }
  if (depth > copyDepthMax) {
    throw new ForkdError("bad_request", `${from}: its directories are too deep`);
  }
}

async function isGuestDirectory(copy: Copy, path: string): Promise<boolean> {
  try {
    const { type } = await copy.files.stat(path, { ...controlOf(copy), follow: true });
    return type === "directory";
  } catch (error) {
    if (error instanceof ForkdError && error.code === "file_not_found") return false;
    throw error;
  }
}

function controlOf({ user, signal }: Copy): { user: string | undefined; signal: AbortSignal } {
  return { user, signal };
}
