import { type NativeName, nativeTool } from "../lib/native.ts";

/** stdin, stdout, stderr come first; then the sockets, then the files. */
export const firstExtraFd = 3;

/** A library of ours that the VMM loads before its own. */
export interface Preload {
  readonly library: NativeName;
  /** Tells the library which descriptor it was loaded from, so that it can close it. */
  readonly fdVariable: string;
  readonly env: Readonly<Record<string, string>>;
}

export interface FileBind {
  readonly file: string;
  /** Absolute; must not exist, and is made. */
  readonly name: string;
}

export interface VmmSpawn {
  readonly argv: readonly string[];
  readonly workDir: string;
  readonly dieWithParent: boolean;
  /** cgroup.procs files of the groups that it joins before it runs. */
  readonly cgroups: readonly string[];
  /** How many sockets the VMM gets, from descriptor 3 on. */
  readonly sockets: number;
  /** Files opened read-only for it, on the descriptors after the sockets. */
  readonly files: readonly string[];
  readonly preload: Preload | null;
  /** Files that it sees under other names too, read-only; it alone sees them there. */
  readonly binds?: readonly FileBind[];
  /** File of the network namespace that it joins; ours when absent or null. */
  readonly netns?: string | null;
  /** Instead: a network namespace of its own, with nothing in it. */
  readonly ownNetns?: boolean;
  /** A tap device of that network, made if it is not there, that this user may open. */
  readonly tap?: { readonly name: string; readonly uid: number } | null;
  /**
   * Where its standard output goes: into its log, which is so when absent, nowhere, or to us. The
   * log has no bound, so what a guest can write must not go there.
   */
  readonly stdout?: "log" | "nowhere" | "us";
}

/**
 * A VMM gets nothing of our environment, which may hold secrets. The tunables (glibc manual, Memory
 * Allocation Tunables) keep a mostly idle process in one heap without caches: a megabyte a child.
 */
function fixedEnv(): Record<string, string> {
  const tunables = {
    arena_max: 1,
    tcache_count: 0,
    mmap_threshold: 65_536,
    trim_threshold: 65_536,
    top_pad: 0,
  };
  const words = Object.entries(tunables).map(([name, value]) => `glibc.malloc.${name}=${value}`);
  return { PATH: process.env["PATH"] ?? "/usr/bin:/bin", GLIBC_TUNABLES: words.join(":") };
}

/** What is opened for the VMM: a library to load comes last. */
export function filesOf({ files, preload }: VmmSpawn): readonly string[] {
  return preload === null ? files : [...files, nativeTool(preload.library)];
}

/**
 * The library is named by its descriptor: the loader would split a path at blanks and colons. The
 * launcher is static, so only the VMM loads it.
 */
function preloadEnv({ sockets, files, preload }: VmmSpawn): Record<string, string> {
  if (preload === null) return {};
  const fd = firstExtraFd + sockets + files.length;
  const { fdVariable, env } = preload;
  return { LD_PRELOAD: `/proc/self/fd/${fd}`, [fdVariable]: String(fd), ...env };
}

function netArgs({ netns, ownNetns = false, tap }: VmmSpawn): string[] {
  return [
    ...(netns == null ? [] : ["--netns", netns]),
    ...(ownNetns ? ["--own-netns"] : []),
    ...(tap == null ? [] : ["--tap", tap.name, String(tap.uid)]),
  ];
}

/** What forkd-launch is told, by a process with the pid `parent`. */
export function launcherArgs(request: VmmSpawn, parent: number): string[] {
  const fds = firstExtraFd + request.sockets + filesOf(request).length;
  return [
    ...request.cgroups.flatMap((file) => ["--cgroup", file]),
    ...(request.binds ?? []).flatMap(({ file, name }) => ["--bind", file, name]),
    ...netArgs(request),
    "--no-thp",
    ...(request.dieWithParent ? ["--die-with-parent", String(parent)] : []),
    "--oom-score-adj",
    "500",
    "--keep-fds",
    String(fds),
    "--",
    ...request.argv,
  ];
}

/** All that the launcher, and so the VMM, gets of an environment. */
export function vmmEnv(request: VmmSpawn): Record<string, string> {
  return { ...fixedEnv(), ...preloadEnv(request) };
}
