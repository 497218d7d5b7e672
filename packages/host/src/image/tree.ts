import { chmod, lstat, mkdir, readdir, realpath } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { ForkdError } from "@forkd/api";
import { isErrno } from "../lib/atomic.ts";
import { reword, runTool } from "./tools.ts";

const copyTimeoutMs = 15 * 60_000;

/** Directories that the guest mounts over (docs/guest-protocol.md, "Boot"). */
const mountPoints: readonly (readonly [string, number])[] = [
  ["proc", 0o555],
  ["sys", 0o555],
  ["dev", 0o755],
  ["run", 0o755],
  ["tmp", 0o1777],
];

export interface TreePlace {
  /** Where the root directory will be made; must not exist. */
  readonly treeDir: string;
  readonly signal: AbortSignal;
}

/** `lstat` that turns absence into image_not_found. */
export async function statSource(path: string, want: "file" | "dir"): Promise<void> {
  const stats = await lstatOrMissing(path);
  if (stats === undefined) {
    throw new ForkdError("image_not_found", `there is no ${want} ${path}`, {
      hint: "check the path",
    });
  }
  const fits =
    want === "file" ? !stats.isDirectory() : stats.isDirectory() || stats.isSymbolicLink();
  if (!fits) throw new ForkdError("image_invalid", `${path} is no ${want}`);
}

async function lstatOrMissing(path: string) {
  return lstat(path).catch((error: unknown) => {
    if (isErrno(error, "ENOENT") || isErrno(error, "ENOTDIR")) return undefined;
    throw error;
  });
}

/**
 * Unpacks a tar file, compressed or not, with owners, modes, hard links and attributes. Members
 * cannot land outside: GNU tar strips leading slashes, refuses ".." and makes links that lead out
 * only after everything else. Throws image_invalid.
 */
export async function unpackTar(file: string, { treeDir, signal }: TreePlace): Promise<void> {
  await mkdir(treeDir, { mode: 0o755 });
  const keep = ["--numeric-owner", "--same-owner", "--same-permissions", "--acls", "--xattrs"];
  const argv = [
    "tar",
    "--extract",
    "--file",
    file,
    "--directory",
    treeDir,
    "--force-local",
    ...keep,
  ];
  try {
    await runTool([...argv, "--xattrs-include=*"], { timeoutMs: copyTimeoutMs, signal });
  } catch (error) {
    throw reword(error, [
      { words: /./, code: "image_invalid", message: `${file} cannot be unpacked` },
    ]);
  }
}

/** Copies a directory of the user, who keeps it as it was. Does not enter other file systems. */
export async function copyTree(dir: string, { treeDir, signal }: TreePlace): Promise<void> {
  const [source, parent] = await Promise.all([realpath(dir), realpath(dirname(treeDir))]);
  if (!relative(source, parent).startsWith("..")) {
    throw new ForkdError("image_invalid", `${dir} holds forkd's own data directory`, {
      hint: "choose a directory below it, or move forkd with FORKD_DATA_DIR",
    });
  }
  await mkdir(treeDir, { mode: 0o755 });
  const argv = ["cp", "--archive", "--reflink=auto", "--sparse=auto", "--one-file-system"];
  await runTool([...argv, "--", `${source}/.`, treeDir], { timeoutMs: copyTimeoutMs, signal });
}

/**
 * Makes the directories that the guest mounts over where they are absent. Throws image_invalid for
 * a tree that is empty or where something else has such a name.
 */
export async function ensureMountPoints(treeDir: string): Promise<void> {
  if ((await readdir(treeDir)).length === 0) {
    throw new ForkdError("image_invalid", "the image is empty");
  }
  for (const [name, mode] of mountPoints) {
    const path = join(treeDir, name);
    const stats = await lstatOrMissing(path);
    if (stats === undefined) {
      await mkdir(path);
      await chmod(path, mode);
    } else if (!stats.isDirectory() && !stats.isSymbolicLink()) {
      throw new ForkdError("image_invalid", `/${name} of the image is no directory`);
    }
  }
}
