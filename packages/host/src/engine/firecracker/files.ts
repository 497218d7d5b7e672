import { constants } from "node:fs";
import { chmod, chown, type FileHandle, open, rename, rm, stat, symlink } from "node:fs/promises";
import { basename, join } from "node:path";
import { ForkdError } from "@forkd/api";
import { isErrno } from "../../lib/atomic.ts";
import type { FileBind } from "../vmm-spawn.ts";
import { type CopyOptions, copyOpened, syncOpened } from "./copy.ts";

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
  /** The scratch disk, the only file that a guest writes. */
  scratch: "scratch.img",
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
  await using source = await openPlain(from);
  const { size } = await source.stat();
  if (size === 0 || size > vmstateBytesMax) {
    throw new ForkdError("engine_failed", `Firecracker saved a state of ${size} bytes`);
  }
  const bytes = Buffer.alloc(size);
  const { bytesRead } = await source.read(bytes, 0, size, 0);
  await using target = await open(to, "wx", 0o600);
  await target.writeFile(bytes.subarray(0, bytesRead));
}

function notWritten(path: string): ForkdError {
  const message = `${path} is not the file that Firecracker was to write`;
  return new ForkdError("engine_failed", message);
}

/** Throws engine_failed unless a VMM wrote a plain file of exactly that size. */
export async function requireSize(path: string, bytes: number): Promise<void> {
  await (await openSized(path, bytes)).close();
}

/**
 * Opens a file that a VMM wrote, to read it: what is done with the handle is done with the file
 * that was looked at, whatever its name is given to meanwhile. Throws engine_failed unless it is
 * plain and of that size.
 */
export async function openSized(path: string, bytes: number): Promise<FileHandle> {
  const handle = await openPlain(path);
  try {
    const { size } = await handle.stat();
    if (size === bytes) return handle;
    const message = `${basename(path)} of Firecracker has ${size} bytes, and not ${bytes}`;
    throw new ForkdError("engine_failed", message);
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** To read it. Throws engine_failed for what is no file. */
async function openPlain(path: string): Promise<FileHandle> {
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
  const handle = await open(path, flags).catch((error: unknown) => {
    // A symbolic link, a socket: see open(2).
    throw isErrno(error, "ELOOP") || isErrno(error, "ENXIO") ? notWritten(path) : error;
  });
  try {
    if ((await handle.stat()).isFile()) return handle;
    throw notWritten(path);
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/**
 * Moves a file of that size out of a VMM's directory, and makes it ours; `to` is replaced. It is
 * looked at again once it is out, where whoever runs in a jail cannot put another one in its place.
 */
export async function moveOut(from: string, to: string, bytes: number): Promise<void> {
  await requireSize(from, bytes);
  await move(from, to);
  await using handle = await openSized(to, bytes);
  const self = { uid: process.getuid?.() ?? -1, gid: process.getgid?.() ?? -1 };
  if (self.uid >= 0) await handle.chown(self.uid, self.gid);
  await handle.chmod(0o600);
}

async function move(from: string, to: string, options: CopyOptions = {}): Promise<void> {
  try {
    await rename(from, to);
  } catch (error) {
    if (!isErrno(error, "EXDEV")) throw error;
    await copyPlain(from, to, options);
    await rm(from);
  }
}

/** Copies a plain file, as in {@link copyOpened}. Throws engine_failed for anything else. */
export async function copyPlain(
  from: string,
  to: string,
  options: CopyOptions = {},
): Promise<void> {
  await using source = await openPlain(from);
  await copyOpened(source, to, options);
}

/** A file that a VMM is to have for itself, under one of its names, and may write. */
export interface OwnFile {
  readonly file: string;
  readonly name: string;
  /** Whether it gets a copy, or the file itself, which is not where it was then. */
  readonly by: "copy" | "move";
}

/** Who gets it, and where. */
export interface OwnPlace extends CopyOptions {
  readonly dir: string;
  readonly user: JailUser | null;
}

/**
 * Gives a VMM a file of its own, before it runs. Returns its size. Throws disk_full,
 * deadline_exceeded, the signal's reason.
 */
export async function giveOwn(own: OwnFile, { dir, user, signal }: OwnPlace): Promise<number> {
  const path = join(dir, own.name);
  await (own.by === "copy" ? copyPlain : move)(own.file, path, { signal });
  if (user !== null) await chown(path, user.uid, user.gid);
  await chmod(path, 0o600);
  return (await stat(path)).size;
}

/** A disk that a VMM writes, maybe meanwhile. */
export interface WrittenDisk {
  /** In the VMM's directory. */
  readonly from: string;
  readonly bytes: number;
  readonly signal: AbortSignal | undefined;
}

/**
 * Has the host write down what is in its cache of a disk. Throws engine_failed, tool_failed,
 * deadline_exceeded, or the signal's reason: the host goes on with it then.
 */
export async function flushDisk({ from, bytes, signal }: WrittenDisk): Promise<void> {
  const source = await openSized(from, bytes);
  await syncOpened(source, { signal });
}

/** Copies a disk into a new file of ours. Throws engine_failed, disk_full, the signal's reason. */
export async function copyDisk({ from, bytes, signal }: WrittenDisk, to: string): Promise<void> {
  await using source = await openSized(from, bytes);
  await copyOpened(source, to, { signal });
  // It may have been cut while it was read.
  await requireSize(to, bytes);
}

/** Removes the files of captures that a VMM's directory still has. */
export async function removeNames(dir: string, names: readonly string[]): Promise<void> {
  for (const name of names) await rm(join(dir, name), { force: true });
}
