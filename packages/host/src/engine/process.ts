import { type ChildProcessByStdio, spawn } from "node:child_process";
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { join } from "node:path";
import type { Duplex, Readable, Writable } from "node:stream";
import { ForkdError } from "@forkd/api";
import { withDeadline } from "../lib/deadline.ts";
import { type NativeName, nativeTool } from "../lib/native.ts";
import type { ProcessIdentity } from "../linux/proc.ts";
import type { VmEnd } from "./engine.ts";

/** A kill needs no help of the VMM; a process that outlives this is stuck in the kernel. */
const stopTimeoutMs = 10_000;
const logTailBytesMax = 4096;
/** From the break of a VMM's sockets to the event of its end. */
const deathSeenMs = 300;

/** What a VM needs of its process, whoever started it. */
export interface VmProcess {
  readonly identity: ProcessIdentity;
  readonly ended: Promise<VmEnd>;
  /** Ends it at once; resolves when it is gone. Idempotent. */
  stop(): Promise<VmEnd>;
}

/** How a VMM's process ended, of what could be learnt. */
export interface ProcessExit {
  readonly exitCode: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** What a starter of VMMs has of one. */
export interface StartedProcess {
  readonly identity: ProcessIdentity;
  readonly workDir: string;
  readonly exited: Promise<ProcessExit>;
  /** SIGKILL; nothing when it has ended. */
  readonly kill: () => void;
  /** Our ends of its sockets. */
  readonly sockets: readonly Duplex[];
  /** What it prints, if that comes here. */
  readonly stdout: Readable | null;
  /** Lets this process exit while the VMM lives on. */
  readonly unref: () => void;
}

/** A VMM's process that we started: its end is an event, its last words are kept. */
export class VmmProcess implements VmProcess {
  readonly identity: ProcessIdentity;
  readonly ended: Promise<VmEnd>;
  readonly #started: StartedProcess;
  #stopped = false;

  constructor(started: StartedProcess) {
    this.#started = started;
    this.identity = started.identity;
    this.ended = started.exited.then((exit) => {
      const log = logTail(started.workDir);
      return { stopped: this.#stopped, ...exit, guestOff: null, log };
    });
  }

  /** Our end of the VMM's socket number `index`. */
  socket(index: number): Duplex {
    const socket = this.#started.sockets[index];
    if (socket !== undefined) return socket;
    throw new ForkdError("internal", `the VMM has no socket ${index}`);
  }

  /** What it prints, for a VMM that was started with `stdout: "us"`. */
  get stdout(): Readable {
    const { stdout } = this.#started;
    if (stdout !== null) return stdout;
    throw new ForkdError("internal", "the VMM's standard output does not come here");
  }

  /** Lets this process exit while the VMM lives on. */
  unref(): void {
    this.#started.unref();
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
    this.#started.kill();
    return await withDeadline(this.ended, stopTimeoutMs, "ending the VMM");
  }

  logTail(): string {
    return logTail(this.#started.workDir);
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
