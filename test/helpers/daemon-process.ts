import assert from "node:assert/strict";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { runChild } from "../runner/child.ts";
import { repoRoot } from "./baked.ts";
import { eventually } from "./eventually.ts";

const program = join(repoRoot, "bin/forkd-controller");
const deadlineMs = 60_000;

export interface ProcessOptions {
  /** More for its environment. */
  readonly env?: Readonly<Record<string, string>>;
}

/** A running `forkd-controller`: its lines so far, and its exit code once it has ended. */
export class DaemonProcess {
  readonly stdout: string[] = [];
  readonly stderr: string[] = [];
  readonly ended: Promise<number | null>;

  constructor(args: readonly string[], { env = {} }: ProcessOptions = {}) {
    const end = runChild([program, ...args], {
      cwd: repoRoot,
      env: { PATH: process.env["PATH"], HOME: process.env["HOME"], ...env },
      deadlineMs,
      onStdoutLine: (line) => this.stdout.push(line),
      onStderrLine: (line) => this.stderr.push(line),
    });
    this.ended = end.then(({ code }) => code);
  }

  /** Its address and pid, once it says that it listens. */
  async listening(): Promise<{ url: string; pid: number }> {
    return await eventually(
      () => {
        const line = this.stdout.find((each) => each.includes('"msg":"listening"'));
        assert.ok(line, this.stderr.join("\n"));
        return JSON.parse(line);
      },
      { timeoutMs: 20_000 },
    );
  }

  /** Waits until its log has so many lines with this text. */
  async logged(text: string, count = 1): Promise<void> {
    const found = (): number => this.stdout.filter((line) => line.includes(text)).length;
    await eventually(() => assert.ok(found() >= count, `${found()} of ${count}: ${text}`), {
      timeoutMs: 20_000,
    });
  }
}

export interface StartedProcess {
  readonly daemon: DaemonProcess;
  readonly url: string;
  readonly pid: number;
}

/** Starts a daemon on a free port; it is stopped with the test. */
export async function startProcess(
  context: TestContext,
  dir: string,
  ...args: string[]
): Promise<StartedProcess> {
  return await startProcessWith(context, { dir, args });
}

export interface StartOptions extends ProcessOptions {
  /** Its data directory. */
  readonly dir: string;
  readonly args?: readonly string[];
}

/** The same, with more for its environment. */
export async function startProcessWith(
  context: TestContext,
  { dir, args = [], ...options }: StartOptions,
): Promise<StartedProcess> {
  const words = ["serve", "--data-dir", dir, "--bind", "127.0.0.1:0", ...args];
  const daemon = new DaemonProcess(words, options);
  const { url, pid } = await daemon.listening();
  let hasEnded = false;
  void daemon.ended.then(() => {
    hasEnded = true;
  });
  context.after(async () => {
    if (!hasEnded) process.kill(pid, "SIGKILL");
    await daemon.ended;
  });
  return { daemon, url, pid };
}
