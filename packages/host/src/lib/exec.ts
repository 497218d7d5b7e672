import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { ForkdError } from "@forkd/api";
import { packageOf } from "./program-packages.ts";

export interface RunOptions {
  readonly cwd?: string;
  /** The whole environment; the parent's when absent. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Text for standard input, which is closed after it. */
  readonly input?: string;
  /** Milliseconds until the program's process group is killed; 10 minutes when absent. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  /** Bytes kept of standard output; more is an error. */
  readonly stdoutBytesMax?: number;
  /** Called with each line of standard error as it appears. */
  readonly onLine?: (line: string) => void;
}

export interface RunResult {
  readonly stdout: string;
  readonly stderr: string;
}

const timeoutDefaultMs = 10 * 60_000;
const stdoutDefaultBytesMax = 16 * 1024 * 1024;
const stderrTailBytesMax = 8 * 1024;

/**
 * Runs a program to its end and collects what it prints. The program gets a process group of its
 * own, all of which ends at the deadline or the abort.
 *
 * Throws tool_missing, tool_failed (message: program, exit, last words), deadline_exceeded, or
 * disk_full when the last words say so.
 */
export async function run(argv: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const [program, ...args] = argv;
  if (program === undefined) throw new ForkdError("internal", "run needs a program");
  const child = spawn(program, args, {
    cwd: options.cwd,
    // Failures are told apart by their words, which must be the ones that are known.
    env: { ...(options.env ?? process.env), LC_ALL: "C.UTF-8" },
    detached: true,
    stdio: [options.input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
  });
  const output = collect(child, options);
  const ended = new Promise<RunEnd>((resolve, reject) => {
    child.once("error", (error) => reject(startFailure(program, error)));
    child.once("close", (code, signal) => resolve({ code, signal }));
  });
  const timeoutMs = options.timeoutMs ?? timeoutDefaultMs;
  const stop = killAtDeadline(child, timeoutMs, options.signal);
  try {
    if (options.input !== undefined) {
      child.stdin?.on("error", () => undefined);
      child.stdin?.end(options.input);
    }
    const end = await ended;
    stop.throwIfStopped(program);
    return output.finish(program, end);
  } finally {
    stop.clear();
  }
}

/** A program that runs between two streams. */
export interface Filter {
  /** Its errors, a program that ended early, are told by `ended`. */
  readonly stdin: Writable;
  readonly stdout: Readable;
  /** Resolves when it has ended well; throws what {@link run} throws. */
  readonly ended: Promise<void>;
}

export interface FilterOptions {
  /** Until its process group is killed; null for a program that lives as long as its owner. */
  readonly timeoutMs: number | null;
  readonly signal: AbortSignal;
  /** The whole environment; ours when absent. */
  readonly env?: Readonly<Record<string, string | undefined>>;
}

/**
 * Starts a program whose input and output are streams of any length. Whoever stops using it must
 * abort the signal; at the deadline its process group is killed.
 */
export function startFilter(argv: readonly [string, ...string[]], options: FilterOptions): Filter {
  const [program, ...args] = argv;
  const child = spawn(program, args, {
    env: { ...(options.env ?? process.env), LC_ALL: "C.UTF-8" },
    detached: true,
    stdio: ["pipe", "pipe", "pipe"],
  });
  const tail = keepTail(child.stderr);
  const stop = killAtDeadline(child, options.timeoutMs, options.signal);
  const ended = new Promise<RunEnd>((resolve, reject) => {
    child.once("error", (error) => reject(startFailure(program, error)));
    child.once("close", (code, signal) => resolve({ code, signal }));
  }).then((end) => {
    stop.throwIfStopped(program);
    if (end.code !== 0) throw runFailure(program, end, tail());
  });
  // It counts as ended when its output has been read, which nobody does any more.
  const discard = (): void => void child.stdout.destroy();
  options.signal.addEventListener("abort", discard, { once: true });
  const tidy = ended.finally(() => {
    stop.clear();
    options.signal.removeEventListener("abort", discard);
  });
  // Who waits for it sees its failure; who does not must not end the process with it.
  tidy.catch(() => undefined);
  child.stdin.on("error", () => undefined);
  return { stdin: child.stdin, stdout: child.stdout, ended: tidy };
}

interface RunEnd {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

function startFailure(program: string, error: NodeJS.ErrnoException): ForkdError {
  if (error.code === "ENOENT") {
    return new ForkdError("tool_missing", `the program ${program} is not installed`, {
      hint: installHint(program),
      cause: error,
    });
  }
  return new ForkdError("tool_failed", `${program} did not start: ${error.message}`, {
    cause: error,
  });
}

/** For a host with a package of forkd, and for a checkout; programs with a path are our own. */
function installHint(program: string): string {
  if (program.includes("/")) return "install forkd again; in a checkout run: ./scripts/setup.sh";
  return `run: apt-get install ${packageOf(program)} (in a checkout: ./scripts/setup.sh)`;
}

function killGroup(child: ChildProcess): void {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  try {
    process.kill(-child.pid, "SIGKILL");
  } catch {
    // The group ended between the check and the kill.
  }
}

function killAtDeadline(
  child: ChildProcess,
  timeoutMs: number | null,
  signal: AbortSignal | undefined,
) {
  let stopped: "deadline" | "abort" | undefined;
  const stop = (why: "deadline" | "abort"): void => {
    stopped ??= why;
    killGroup(child);
  };
  const timer = timeoutMs === null ? undefined : setTimeout(() => stop("deadline"), timeoutMs);
  const onAbort = (): void => stop("abort");
  if (signal?.aborted) onAbort();
  signal?.addEventListener("abort", onAbort, { once: true });
  return {
    clear: (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", onAbort);
    },
    throwIfStopped: (program: string): void => {
      if (stopped === "abort") signal?.throwIfAborted();
      if (stopped === "deadline") {
        throw new ForkdError("deadline_exceeded", `${program} took longer than ${timeoutMs} ms`);
      }
    },
  };
}

function collect(child: ChildProcess, options: RunOptions) {
  const bytesMax = options.stdoutBytesMax ?? stdoutDefaultBytesMax;
  const chunks: Buffer[] = [];
  let bytes = 0;
  const tail = keepTail(child.stderr);
  child.stdout?.on("data", (chunk: Buffer) => {
    bytes += chunk.length;
    if (bytes <= bytesMax) chunks.push(chunk);
    else killGroup(child);
  });
  if (options.onLine !== undefined && child.stderr !== null) {
    createInterface({ input: child.stderr }).on("line", options.onLine);
  }
  return {
    finish: (program: string, end: RunEnd): RunResult => {
      if (bytes > bytesMax) {
        throw new ForkdError("tool_failed", `${program} printed more than ${bytesMax} bytes`);
      }
      if (end.code !== 0) throw runFailure(program, end, tail());
      return { stdout: Buffer.concat(chunks).toString("utf8"), stderr: tail() };
    },
  };
}

/** The last words of a stream, as it goes. */
function keepTail(stream: Readable | null): () => string {
  let tail = "";
  stream?.setEncoding("utf8");
  stream?.on("data", (text: string) => {
    tail = (tail + text).slice(-stderrTailBytesMax);
  });
  return () => tail;
}

function runFailure(program: string, end: RunEnd, tail: string): ForkdError {
  const how = end.signal === null ? `exited with ${end.code}` : `was ended by ${end.signal}`;
  const words = tail.trim();
  const message = words === "" ? `${program} ${how}` : `${program} ${how}: ${words}`;
  const code = /No space left on device/.test(tail) ? "disk_full" : "tool_failed";
  return new ForkdError(code, message);
}
