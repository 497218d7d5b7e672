import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { repoRoot } from "./baked.ts";

export interface CliEnd {
  /** Null when a signal ended it. */
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly ms: number;
}

export interface CliOptions {
  readonly dataDir: string;
  /** The daemon to use; without one the default address, which serves another data directory. */
  readonly daemon?: { readonly url: string; readonly token: string };
  /** More for its environment. */
  readonly env?: Readonly<Record<string, string>>;
  readonly input?: string;
  readonly timeoutMs?: number;
}

/** A run of the real `bin/forkd` in progress. */
export interface CliRun {
  readonly process: ChildProcess;
  readonly ended: Promise<CliEnd>;
  /** Resolves when a line of either output matches, or has; rejects when the program ends before. */
  said(pattern: RegExp): Promise<void>;
}

const timeoutDefaultMs = 120_000;

/** Starts `bin/forkd` without any FORKD_ variable of whoever runs the tests. */
export function startForkd(args: readonly string[], options: CliOptions): CliRun {
  const started = performance.now();
  const child = spawn(join(repoRoot, "bin/forkd"), args, {
    cwd: "/",
    env: environment(options),
    stdio: ["pipe", "pipe", "pipe"],
  });
  child.stdin.on("error", () => undefined);
  child.stdin.end(options.input ?? "");
  const text = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) {
    child[name].setEncoding("utf8").on("data", (more: string) => {
      text[name] += more;
    });
  }
  const timer = setTimeout(() => child.kill("SIGTERM"), options.timeoutMs ?? timeoutDefaultMs);
  const ended = once(child, "close").then((): CliEnd => {
    clearTimeout(timer);
    const { exitCode: code, signalCode: signal } = child;
    return { code, signal, ...text, ms: performance.now() - started };
  });
  return { process: child, ended, said: (pattern) => waitFor({ child, text, ended }, pattern) };
}

/** Runs `bin/forkd` to its end. */
export function forkd(args: readonly string[], options: CliOptions): Promise<CliEnd> {
  return startForkd(args, options).ended;
}

function environment({
  dataDir,
  daemon,
  env = {},
}: CliOptions): Record<string, string | undefined> {
  const inherited = Object.entries(process.env).filter(
    ([name]) => !name.startsWith("FORKD_") && !/_proxy$/i.test(name),
  );
  return {
    ...Object.fromEntries(inherited),
    FORKD_DATA_DIR: dataDir,
    ...(daemon && { FORKD_URL: daemon.url, FORKD_TOKEN: daemon.token }),
    ...env,
  };
}

interface Said {
  readonly child: ChildProcess;
  /** All that it has said, kept up by a listener that was there before. */
  readonly text: Readonly<Record<"stdout" | "stderr", string>>;
  readonly ended: Promise<CliEnd>;
}

async function waitFor({ child, text, ended }: Said, pattern: RegExp): Promise<void> {
  const { promise: matched, resolve } = Promise.withResolvers<void>();
  const look = (): void => {
    const lines = [text.stdout, text.stderr].flatMap((all) => all.split("\n").slice(0, -1));
    if (lines.some((line) => pattern.test(line))) resolve();
  };
  for (const stream of [child.stdout, child.stderr]) stream?.on("data", look);
  look();
  const early = ended.then(({ stdout, stderr }) => {
    throw new Error(`it ended before it said ${pattern}:\n${stdout}\n${stderr}`);
  });
  early.catch(() => undefined);
  await Promise.race([matched, early]);
}

/** How long a program takes to end once it gets a signal; it must have done so in `timeoutMs`. */
export async function endsAfter(
  run: CliRun,
  signal: NodeJS.Signals,
  timeoutMs: number,
): Promise<CliEnd> {
  run.process.kill(signal);
  const late = new AbortController();
  const timeout = sleep(timeoutMs, undefined, { signal: late.signal }).then(() => {
    run.process.kill("SIGKILL");
    throw new Error(`it lived on ${timeoutMs} ms after ${signal}`);
  });
  timeout.catch(() => undefined);
  try {
    return await Promise.race([run.ended, timeout]);
  } finally {
    late.abort();
  }
}
