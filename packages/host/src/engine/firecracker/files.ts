import { constants } from "node:fs";
import { chmod, chown, open, rename, rm, stat, symlink } from "node:fs/promises";
import { join } from "node:path";
import { ForkdError } from "@forkd/api";
import { isErrno } from "../../lib/atomic.ts";
import { run } from "../../lib/exec.ts";
import type { FileBind } from "../vmm-spawn.ts";

/**
 * Names inside the directory that a VMM sees as its own: the work directory, or the root of its
 * jail. All that Firecracker is told are these names, without a path: they are frozen in its saved
 * state, and each child finds its own files under them.
 */
export const vmFiles = {
  api: "fc.sock",
  /** Firecracker's end of the guest's vsock. */
  vsock: "agent.sock",
  kernel: "vmlinux",
  initrd: "initrd",
  root: "root.img",
  /** What a child is loaded from. */
  memory: "memory.img",
  vmstate: "vmstate",
  /** What a capture writes: the pages of changes, the whole RAM, the state. */
  pages: "pages.img",
  full: "full.img",
  saved: "saved",
} as const;

/** Port of the agent in the guest, of our choice; `forkd.channel` on the kernel's command line. */
export const agentPort = 1024;

/** State of a machine without its RAM is some ten kilobytes; devices bound it. */
const vmstateBytesMax = 64 * 1024 * 1024;
const copyTimeoutMs = 300_000;

/** Whoever the VMM runs as, when it is not who we are. */
export interface JailUser {
  readonly uid: number;
  readonly gid: number;
}

/** A file that a VMM is to see under one of its names. */
export interface Provided {
  readonly file: string;
  readonly name: string;
}

/**
 * Gives a VMM its files: by symbolic links, or into a jail, which has no other files, by mounts
 * that the launcher makes and that its group may read. A hard link would change the file's ctime,
 * by which the store knows that it is as it was.
 */
export async function provide(
  files: readonly Provided[],
  dir: string,
  user: JailUser | null,
): Promise<readonly FileBind[]> {
  if (user === null) {
    await Promise.all(files.map(({ file, name }) => symlink(file, join(dir, name))));
    return [];
  }
  for (const { file } of files) await allowGroup(file, user.gid);
  return files.map(({ file, name }) => ({ file, name: join(dir, name) }));
}

/** Once a file: what is given to every child must not get a new ctime by each. */
async function allowGroup(path: string, gid: number): Promise<void> {
  const { uid, gid: group, mode } = await stat(path);
  const read = constants.S_IRGRP;
  if (group !== gid) await chown(path, uid, gid);
  if ((mode & read) === 0) await chmod(path, (mode & 0o777) | read);
}

/**
 * Copies what a VMM wrote into a new file of ours. Whoever runs in a jail may have put anything
 * there: only a file of the expected kind and size is taken.
 */
export async function takeState(from: string, to: string): Promise<void> {
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
  await using source = await open(from, flags);
  const { size } = await requireFile(source, from);
  if (size === 0 || size > vmstateBytesMax) {
    throw new ForkdError("engine_failed", `Firecracker saved a state of ${size} bytes`);
  }
  const bytes = Buffer.alloc(size);
  const { bytesRead } = await source.read(bytes, 0, size, 0);
  await using target = await open(to, "wx", 0o600);
  await target.writeFile(bytes.subarray(0, bytesRead));
}

async function requireFile(
  handle: { stat(): Promise<{ isFile(): boolean; size: number }> },
  path: string,
): Promise<{ size: number }> {
  const stats = await handle.stat();
  if (stats.isFile()) return stats;
  throw new ForkdError("engine_failed", `${path} is not the file that Firecracker was to write`);
}

/** Throws engine_failed unless a VMM wrote a plain file of exactly that size. */
export async function requireMemory(path: string, bytes: number): Promise<void> {
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
  await using handle = await open(path, flags);
  const { size } = await requireFile(handle, path);
  if (size === bytes) return;
  const message = `Firecracker wrote ${size} bytes of memory, the guest has ${bytes}`;
  throw new ForkdError("engine_failed", message);
}

/** Moves a checked file out of a VMM's directory, and makes it ours; `to` is replaced. */
export async function moveOut(from: string, to: string): Promise<void> {
  try {
    await rename(from, to);
  } catch (error) {
    if (!isErrno(error, "EXDEV")) throw error;
    await copySparse(from, to);
    await rm(from);
  }
  const self = { uid: process.getuid?.() ?? -1, gid: process.getgid?.() ?? -1 };
  if (self.uid >= 0) await chown(to, self.uid, self.gid);
  await chmod(to, 0o600);
}

/** Shares the blocks where the file system can, and keeps holes where it cannot. */
export async function copySparse(from: string, to: string): Promise<void> {
  const argv = ["cp", "--reflink=auto", "--sparse=auto", "--no-dereference", "--", from, to];
  await run(argv, { timeoutMs: copyTimeoutMs });
  await chmod(to, 0o600);
}

/** Removes the files of captures that a VMM's directory still has. */
export async function removeNames(dir: string, names: readonly string[]): Promise<void> {
  for (const name of names) await rm(join(dir, name), { force: true });
}
