import { constants } from "node:fs";
import { access, chmod, copyFile, mkdir, mkdtemp, stat, statfs, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { removeTree } from "../store/staging-dirs.ts";
import { type Check, type Finding, fail, pass, skip, warn } from "./check.ts";
import type { DaemonAnswer, DoctorScope } from "./scope.ts";

const gib = 1024 ** 3;
/** As upstream has it: an image and some snapshots, and what nothing fits into. */
const diskWantedBytes = 5 * gib;
const diskNeededBytes = gib;
/** A snapshot is some ten files. */
const inodesWanted = 10_000;
/** sockaddr_un holds 107 bytes (unix(7)); what work directories add to the data directory's path. */
const dataDirBytesMax = 107 - "/work/sb-00000000-0000000000000000/capture.sock".length;
const othersMayWrite = 0o022;

export const storageChecks: readonly Check[] = [
  { name: "data-dir", run: dataDir },
  { name: "snapshot-dir", run: snapshotDir },
  { name: "disk-space", run: diskSpace },
  { name: "reflink", run: reflink },
  { name: "audit-log", run: auditLog },
];

async function dataDir({ paths }: DoctorScope): Promise<Finding> {
  const dir = paths.dataDir;
  if (Buffer.byteLength(dir) > dataDirBytesMax) {
    const detail = `${dir} is longer than ${dataDirBytesMax} bytes: no socket fits below it`;
    return fail(detail, "export FORKD_DATA_DIR=/var/lib/forkd");
  }
  const found = await stat(dir).catch(() => undefined);
  if (found === undefined) return warn(`${dir} is not there yet`, `mkdir -p ${dir}`, make(dir));
  if (!found.isDirectory()) return fail(`${dir} is no directory`, `ls -ld ${dir}`);
  if ((found.mode & othersMayWrite) !== 0) {
    return fail(`others may write to ${dir}`, `sudo chmod go-w ${dir}`, close(dir, found.mode));
  }
  if (await isWritable(dir)) return pass(dir);
  return warn(`${dir} is not ours to write`, "sudo forkd doctor  # or set FORKD_DATA_DIR");
}

function make(dir: string) {
  return async (): Promise<string> => {
    await mkdir(dir, { recursive: true, mode: 0o755 });
    return `made ${dir}`;
  };
}

function close(path: string, mode: number) {
  return async (): Promise<string> => {
    await chmod(path, mode & 0o777 & ~othersMayWrite);
    return `nobody else may write to ${path} any more`;
  };
}

async function isWritable(path: string): Promise<boolean> {
  return await access(path, constants.W_OK).then(
    () => true,
    () => false,
  );
}

async function snapshotDir(scope: DoctorScope): Promise<Finding> {
  const { dir, whose } = snapshotRoot(scope, await scope.askDaemon());
  const found = await stat(dir).catch(() => undefined);
  if (found !== undefined) return pass(`${dir}, ${whose}`);
  return pass(`${dir}, ${whose}; made by the first snapshot`);
}

/** The daemon's, if there is one: the caller's own may be another. */
function snapshotRoot({ paths }: DoctorScope, daemon: DaemonAnswer) {
  if (daemon.kind !== "up") return { dir: paths.snapshotsDir, whose: "of this command" };
  return { dir: daemon.facts.snapshots_dir, whose: "of the daemon" };
}

/** The daemon is asked, which may see another file system than we do. */
async function diskSpace(scope: DoctorScope): Promise<Finding> {
  const daemon = await scope.askDaemon();
  const { dir, whose } = snapshotRoot(scope, daemon);
  const stats = await statfs(await nearest(dir));
  const free =
    daemon.kind === "up" ? daemon.facts.snapshots_free_bytes : stats.bavail * stats.bsize;
  const detail = `${(free / gib).toFixed(1)} GiB are free for ${dir}, ${whose}`;
  const hint = "forkd images && forkd cleanup --yes  # then forkd rmi what is not needed";
  if (free < diskNeededBytes) return fail(detail, hint);
  if (free < diskWantedBytes) return warn(detail, hint);
  // Some file systems count no inodes.
  if (stats.files > 0 && stats.ffree < inodesWanted) {
    return warn(`only ${stats.ffree} inodes are free for ${dir}`, hint);
  }
  return pass(detail);
}

/** The directory itself or the nearest above it that is there. */
async function nearest(dir: string): Promise<string> {
  const there = await stat(dir).catch(() => undefined);
  return there !== undefined || dir === dirname(dir) ? dir : await nearest(dirname(dir));
}

/** Whether a copy shares its blocks, by making one. */
async function reflink({ paths }: DoctorScope): Promise<Finding> {
  if (!(await isWritable(paths.dataDir))) return skip(`${paths.dataDir} cannot be tried`);
  const dir = await mkdtemp(join(paths.dataDir, ".doctor-"));
  try {
    await writeFile(join(dir, "a"), "x".repeat(4096));
    await copyFile(join(dir, "a"), join(dir, "b"), constants.COPYFILE_FICLONE_FORCE);
    return pass("copies share their blocks");
  } catch {
    const costs = "spawns and branch pauses with disks of Firecracker's take their time";
    return skip(`copies are whole: only XFS and Btrfs share blocks; ${costs}`);
  } finally {
    await removeTree(dir);
  }
}

async function auditLog({ auditLogPath: path }: DoctorScope): Promise<Finding> {
  const dir = dirname(path);
  const found = await stat(path).catch(() => undefined);
  if (found === undefined) {
    if (await isWritable(await nearest(dir))) return pass(`${path}, made by the first request`);
    return warn(`${path} cannot be made by us`, "sudo forkd doctor --only audit-log");
  }
  if (!found.isFile()) return fail(`${path} is no file`, `ls -l ${path}`);
  if ((found.mode & othersMayWrite) !== 0) {
    return fail(`others may write to ${path}`, `sudo chmod go-w ${path}`, close(path, found.mode));
  }
  if (await isWritable(path)) return pass(path);
  return warn(`${path} is not ours to write`, "sudo forkd doctor --only audit-log");
}
