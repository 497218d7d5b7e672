import { type ChildProcess, type ChildProcessByStdio, spawn } from "node:child_process";
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { join } from "node:path";
import { Duplex, type Readable, type Writable } from "node:stream";
import { ForkdError } from "@forkd/api";
import { withDeadline } from "../lib/deadline.ts";
import { type NativeName, nativeTool } from "../lib/native.ts";
import { identifyProcess, type ProcessIdentity } from "../linux/proc.ts";
import type { VmEnd } from "./engine.ts";

/** A kill needs no help of the VMM; a process that outlives this is stuck in the kernel. */
const stopTimeoutMs = 10_000;
const logTailBytesMax = 4096;
/** From the break of a VMM's sockets to the event of its end. */
const deathSeenMs = 300;
/** stdin, stdout, stderr come first; then one socket, then the files. */
const firstExtraFd = 3;

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
  /** How many socket pairs the VMM gets, from descriptor 3 on. */
  readonly sockets: number;
  /** Files opened read-only for it, on the descriptors after the sockets. */
  readonly files: readonly string[];
  readonly preload: Preload | null;
  /** Files that it sees under other names too, read-only; it alone sees them there. */
  readonly binds?: readonly FileBind[];
  /** File of the network namespace that it joins; ours when absent or null. */
  readonly netns?: string | null;
  /**
   * Where its standard output goes: into its log, which is so when absent, nowhere, or to us. The
   * log has no bound, so what a guest can write must not go there.
   */
  readonly stdout?: "log" | "nowhere" | "us";
}

/** What a VM needs of its process, whoever started it. */
export interface VmProcess {
  readonly identity: ProcessIdentity;
  readonly ended: Promise<VmEnd>;
  /** Ends it at once; resolves when it is gone. Idempotent. */
  stop(): Promise<VmEnd>;
}

/** A VMM's process that we started: its end is an event, its last words are kept. */
export class VmmProcess implements VmProcess {
  readonly identity: ProcessIdentity;
  readonly ended: Promise<VmEnd>;
  readonly #child: ChildProcess;
  readonly #workDir: string;
  #stopped = false;

  private constructor(child: ChildProcess, identity: ProcessIdentity, workDir: string) {
    this.#child = child;
    this.identity = identity;
    this.#workDir = workDir;
    this.ended = new Promise((resolve) => {
      child.once("exit", (exitCode, signal) => {
        const log = logTail(workDir);
        resolve({ stopped: this.#stopped, exitCode, signal, guestOff: null, log });
      });
    });
  }

  /** Throws engine_failed when the program cannot be started. */
  static async start(request: VmmSpawn): Promise<VmmProcess> {
    const log = openSync(join(request.workDir, "vmm.log"), "a", 0o600);
    const files: number[] = [];
    try {
      for (const path of filesOf(request)) files.push(openSync(path, "r"));
      const sockets = Array.from({ length: request.sockets }, () => "pipe" as const);
      const child = spawn(nativeTool("forkd-launch"), launcherArgs(request), {
        cwd: request.workDir,
        env: { ...vmmEnv(), ...preloadEnv(request) },
        detached: true,
        stdio: ["ignore", stdoutOf(request, log), log, ...sockets, ...files],
      });
      return await VmmProcess.#started(child, request.workDir);
    } finally {
      for (const fd of [log, ...files]) closeSync(fd);
    }
  }

  static async #started(child: ChildProcess, workDir: string): Promise<VmmProcess> {
    if (child.pid === undefined) {
      const { promise, reject } = Promise.withResolvers<never>();
      child.once("error", reject);
      return promise.catch((error: unknown) => {
        throw new ForkdError("engine_failed", `the VMM's launcher did not start: ${error}`, {
          hint: "build it with: make -C native",
          cause: error,
        });
      });
    }
    child.on("error", () => undefined);
    const identity = identifyProcess(child.pid);
    if (identity !== undefined) return new VmmProcess(child, identity, workDir);
    throw new ForkdError("engine_failed", `the VMM ended at once: ${logTail(workDir)}`);
  }

  /** Our end of the VMM's socket number `index`. */
  socket(index: number): Duplex {
    const socket = this.#child.stdio[firstExtraFd + index];
    if (socket instanceof Duplex) return socket;
    throw new ForkdError("internal", `the VMM has no socket ${index}`);
  }

  /** What it prints, for a VMM that was started with `stdout: "us"`. */
  get stdout(): Readable {
    const { stdout } = this.#child;
    if (stdout !== null) return stdout;
    throw new ForkdError("internal", "the VMM's standard output does not come here");
  }

  /** Lets this process exit while the VMM lives on. */
  unref(): void {
    this.#child.unref();
  }

  /**
   * Waits for `work`. A VMM that dies meanwhile is the better reason than what its death broke,
   * which is often seen first. When it throws, the VMM is gone.
   */
  async orDeath<T>(work: Promise<T>, what: string): Promise<T> {
    const died = this.ended.then((end): never => {
      throw failureOf(end, what);
    });
    died.catch(() => undefined);
    try {
      return await Promise.race([work, died]);
    } catch (error) {
      const { promise: later, resolve } = Promise.withResolvers<undefined>();
      const timer = setTimeout(resolve, deathSeenMs, undefined);
      const end = await Promise.race([this.ended, later]).finally(() => clearTimeout(timer));
      await this.stop();
      throw end === undefined ? error : failureOf(end, what);
    }
  }

  async stop(): Promise<VmEnd> {
    this.#stopped = true;
    this.#child.kill("SIGKILL");
    return await withDeadline(this.ended, stopTimeoutMs, "ending the VMM");
  }

  logTail(): string {
    return logTail(this.#workDir);
  }
}

/** SIGBUS is how a VMM learns that the file of its RAM cannot grow. */
function failureOf(end: VmEnd, what: string): ForkdError {
  if (end.signal === "SIGBUS") {
    return new ForkdError("disk_full", `${what}: the disk is full: the guest's memory has no room`);
  }
  const how = end.signal ?? `exit ${end.exitCode}`;
  const words = end.log === "" ? "it printed nothing" : end.log;
  return new ForkdError("engine_failed", `${what}: the VMM ended (${how}): ${words}`);
}

/**
 * A VMM gets nothing of our environment, which may hold secrets. The tunables (glibc manual, Memory
 * Allocation Tunables) keep a mostly idle process in one heap without caches: a megabyte a child.
 */
function vmmEnv(): Record<string, string> {
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

function stdoutOf({ stdout = "log" }: VmmSpawn, log: number): number | "ignore" | "pipe" {
  if (stdout === "log") return log;
  return stdout === "us" ? "pipe" : "ignore";
}

/** What is opened for the VMM: a library to load comes last. */
function filesOf({ files, preload }: VmmSpawn): readonly string[] {
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

function launcherArgs(request: VmmSpawn): string[] {
  const fds = firstExtraFd + request.sockets + filesOf(request).length;
  return [
    ...request.cgroups.flatMap((file) => ["--cgroup", file]),
    ...(request.binds ?? []).flatMap(({ file, name }) => ["--bind", file, name]),
    ...(request.netns == null ? [] : ["--netns", request.netns]),
    "--no-thp",
    ...(request.dieWithParent ? ["--die-with-parent", String(process.pid)] : []),
    "--oom-score-adj",
    "500",
    "--keep-fds",
    String(fds),
    "--",
    ...request.argv,
  ];
}

export type NativeProcess = ChildProcessByStdio<Writable, Readable, Readable>;

/**
 * Starts a helper of ours that works beside a VMM; the caller ends it. It has a group of its own,
 * since an interrupt at a terminal is for the owner. A start that fails is its "error" event.
 */
export function startNative(
  name: NativeName,
  args: readonly string[],
  workDir: string,
): NativeProcess {
  const stdio = ["pipe", "pipe", "pipe"] as const;
  return spawn(nativeTool(name), args, {
    cwd: workDir,
    env: {},
    detached: true,
    stdio: [...stdio],
  });
}

/** The end of a VMM's log, however long that has become. */
export function logTail(workDir: string): string {
  let fd: number | undefined;
  try {
    fd = openSync(join(workDir, "vmm.log"), "r");
    const tail = Buffer.alloc(logTailBytesMax);
    const from = Math.max(0, fstatSync(fd).size - logTailBytesMax);
    return tail.toString("utf8", 0, readSync(fd, tail, 0, tail.length, from)).trim();
  } catch {
    return "";
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}
