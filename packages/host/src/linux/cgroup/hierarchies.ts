import { readFile } from "node:fs/promises";
import { resolve } from "node:path";

/** One mounted control group hierarchy, as this process sees it; paths are absolute. */
export interface Hierarchy {
  readonly version: 1 | 2;
  readonly mountPoint: string;
  /** The kernel's names of what sits here; empty for v2, whose groups say it themselves. */
  readonly controllers: readonly string[];
  /** The group that this process is in. */
  readonly ownDir: string;
}

/** From /proc/self/mountinfo and /proc/self/cgroup. Hierarchies that are not mounted are left out. */
export async function readHierarchies(): Promise<Hierarchy[]> {
  const [mounts, own] = await Promise.all([
    readFile("/proc/self/mountinfo", "utf8"),
    readFile("/proc/self/cgroup", "utf8").catch(() => ""),
  ]);
  return parseHierarchies(mounts, own);
}

/** Parses mountinfo (proc(5)) and the list of a process's groups (cgroups(7)). */
export function parseHierarchies(mountinfo: string, ownGroups: string): Hierarchy[] {
  const groups = parseOwnGroups(ownGroups);
  return mountinfo
    .split("\n")
    .flatMap((line) => parseMount(line) ?? [])
    .flatMap(({ version, root, mountPoint, options }) => {
      const own = groups.find((group) =>
        version === 2
          ? group.controllers.length === 0
          : group.controllers.length > 0 && group.controllers.every((c) => options.includes(c)),
      );
      if (own === undefined) return [];
      const ownDir = resolve(mountPoint, `.${below(root, own.path)}`);
      return [{ version, mountPoint, controllers: own.controllers, ownDir }];
    });
}

interface Mount {
  readonly version: 1 | 2;
  /** The group that the mount point shows. */
  readonly root: string;
  readonly mountPoint: string;
  readonly options: readonly string[];
}

function parseMount(line: string): Mount | undefined {
  const [left = "", right = ""] = line.split(" - ");
  const [, , , root, mountPoint] = left.split(" ");
  const [type, , options = ""] = right.split(" ");
  if (root === undefined || mountPoint === undefined) return undefined;
  if (type !== "cgroup" && type !== "cgroup2") return undefined;
  return {
    version: type === "cgroup2" ? 2 : 1,
    root: unescapePath(root),
    mountPoint: unescapePath(mountPoint),
    options: options.split(","),
  };
}

/** Spaces and such are three octal digits in mountinfo. */
export function unescapePath(text: string): string {
  return text.replaceAll(/\\([0-7]{3})/g, (_, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  );
}

interface OwnGroup {
  /** Empty for v2. */
  readonly controllers: readonly string[];
  readonly path: string;
}

function parseOwnGroups(text: string): OwnGroup[] {
  return text.split("\n").flatMap((line) => {
    const [, id, names, path] = /^(\d+):([^:]*):(.*)$/.exec(line) ?? [];
    if (names === undefined || path === undefined) return [];
    return [{ controllers: id === "0" ? [] : names.split(","), path }];
  });
}

/** A mount may show a subtree only; a process outside of it counts as at its top. */
function below(root: string, path: string): string {
  if (root === "/") return path.startsWith("/..") ? "/" : path;
  return path === root || path.startsWith(`${root}/`) ? path.slice(root.length) : "/";
}
