import { type BigIntStats, readdirSync, readFileSync, readlinkSync, statSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";

/** A file by what it is, whatever its names: device and inode, or the block device. */
export type FileKey = string;

/** A file or block device that a process can change. */
export interface WritableFile {
  readonly key: FileKey;
  /** As the kernel knows it, for messages; a deleted one ends in " (deleted)". */
  readonly path: string;
}

/** open(2): the access mode of a descriptor's flags, in which 0 is read-only. */
const accessModeMask = 0o3;
/** `address perms offset dev inode path` (proc(5), maps), if it is shared and may be written. */
const sharedWritable = /^(\S+) .w.s \S+ ([0-9a-f]+):([0-9a-f]+) (\d+) +(.*)$/gm;

/**
 * The regular files and block devices that a process has open for writing or mapped shared and
 * writable, as the kernel has it (proc(5)). A private mapping cannot change its file, and counts
 * only while a writable descriptor of the file is open. Throws ENOENT when the process has ended,
 * EACCES when it is not ours.
 */
export async function writableFiles(pid: number): Promise<WritableFile[]> {
  const dir = `/proc/${pid}`;
  const maps = await readFile(join(dir, "maps"), "latin1");
  // Synchronous: a few dozen look-ups in memory take less than handing each to a thread.
  const open = readdirSync(join(dir, "fd")).map((fd) => openForWriting(dir, fd));
  const mapped = [...maps.matchAll(sharedWritable)].map((line) => mappedFile(dir, line));
  const byKey = new Map<FileKey, WritableFile>();
  for (const file of [...open, ...mapped]) if (file !== undefined) byKey.set(file.key, file);
  return [...byKey.values()];
}

/** Throws ENOENT when there is no such file. */
export function fileKey(path: string): FileKey {
  return keyOf(statSync(path, { bigint: true }));
}

function openForWriting(dir: string, fd: string): WritableFile | undefined {
  try {
    const link = join(dir, "fd", fd);
    const path = readlinkSync(link);
    // Sockets, pipes and the like have no path.
    if (!path.startsWith("/")) return undefined;
    const stats = statSync(link, { bigint: true });
    if (!holdsData(stats)) return undefined;
    const info = readFileSync(join(dir, "fdinfo", fd), "latin1");
    const flags = Number.parseInt(/^flags:\s+([0-7]+)$/m.exec(info)?.[1] ?? "2", 8);
    return (flags & accessModeMask) === 0 ? undefined : { key: keyOf(stats), path };
  } catch (error) {
    return goneOrThrow(error);
  }
}

function mappedFile(dir: string, line: RegExpExecArray): WritableFile | undefined {
  const [, range = "", major = "", minor = "", inode = "", path = ""] = line;
  if (inode === "0") return undefined;
  try {
    const stats = statSync(join(dir, "map_files", range), { bigint: true });
    return holdsData(stats) ? { key: keyOf(stats), path } : undefined;
  } catch {
    // Only root may look there. The numbers of the line are the same on most file systems.
    const dev = deviceNumber(Number.parseInt(major, 16), Number.parseInt(minor, 16));
    return { key: `${dev}:${inode}`, path };
  }
}

function holdsData(stats: BigIntStats): boolean {
  return stats.isFile() || stats.isBlockDevice();
}

/** A block device is the device, whichever node it was opened by. */
function keyOf(stats: BigIntStats): FileKey {
  return stats.isBlockDevice() ? `block ${stats.rdev}` : `${stats.dev}:${stats.ino}`;
}

/** As stat(2) gives it: new_encode_dev of the kernel (linux/kdev_t.h). */
function deviceNumber(major: number, minor: number): number {
  return (minor & 0xff) + (major << 8) + ((minor & ~0xff) << 12);
}

/** A descriptor may be closed while the list is read. */
function goneOrThrow(error: unknown): undefined {
  if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
  throw error;
}
