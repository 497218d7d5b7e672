import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { constants } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { Client } from "@forkd/sdk";
import { repoRoot } from "./baked.ts";
import { checkedFetch } from "./contract.ts";
import { makeTmpDir } from "./tmp.ts";

const token = "a-token-of-the-e2e-tests";
const readyTimeoutMs = 30_000;
const stopTimeoutMs = 30_000;

/** The real `forkd-controller`, as an operator starts it, on a free port. */
export interface TestDaemon {
  /** Every answer that it gets is checked against the daemon's OpenAPI document. */
  readonly client: Client;
  readonly url: string;
  readonly token: string;
  readonly process: ChildProcess;
  readonly auditLog: string;
  /** SIGTERM, then the exit code. Sandboxes run on. */
  stop(): Promise<number | null>;
  /** Ends every sandbox, then the daemon. */
  killAll(): Promise<number | null>;
  /** SIGKILL. */
  crash(): Promise<void>;
}

export interface DaemonOptions {
  /** More of its command line. */
  readonly flags?: readonly string[];
  /** Directory to find programs in before all others. */
  readonly programs?: string;
  /** In a session of its own, as a service is; whoever starts it must end it. */
  readonly ownSession?: boolean;
}

export async function startDaemon(
  dataDir: string,
  options: DaemonOptions = {},
): Promise<TestDaemon> {
  const tmp = await makeTmpDir("daemon");
  const tokenFile = join(tmp.path, "token");
  writeFileSync(tokenFile, token, { mode: 0o600 });
  const log: string[] = [];
  const auditLog = join(tmp.path, "audit.log");
  const child = spawn(
    join(repoRoot, "bin/forkd-controller"),
    [
      "serve",
      ...["--bind", "127.0.0.1:0", "--data-dir", dataDir, "--token-file", tokenFile],
      ...["--audit-log", auditLog],
      ...(options.flags ?? []),
    ],
    {
      env: environment(options),
      stdio: ["ignore", "pipe", "pipe"],
      detached: options.ownSession ?? false,
    },
  );
  const exited = once(child, "exit").then(() => child.exitCode);
  if (options.ownSession === true) endWithUs(child);
  child.stderr.on("data", (data) => log.push(String(data)));
  const end = async (signal: NodeJS.Signals): Promise<number | null> => {
    child.kill(signal);
    const force = setTimeout(() => child.kill("SIGKILL"), stopTimeoutMs);
    const code = await exited;
    clearTimeout(force);
    await tmp[Symbol.asyncDispose]();
    return code;
  };
  try {
    const url = await listening(child, log);
    return { ...running(child, url, end), auditLog };
  } catch (error) {
    await end("SIGTERM");
    throw error;
  }
}

function environment({ programs }: DaemonOptions): NodeJS.ProcessEnv {
  if (programs === undefined) return process.env;
  return { ...process.env, PATH: `${programs}:${process.env["PATH"]}` };
}

type End = (signal: NodeJS.Signals) => Promise<number | null>;

function running(child: ChildProcess, url: string, end: End): Omit<TestDaemon, "auditLog"> {
  const client = new Client({ url, token, fetch: checkedFetch(url, token) });
  const killAll = async (): Promise<number | null> => {
    if (child.exitCode === null && child.signalCode === null) {
      const sandboxes = await client.listSandboxes();
      await Promise.all(sandboxes.map(({ id }) => client.deleteSandbox({ params: { id } })));
    }
    return end("SIGTERM");
  };
  const stop = (): Promise<number | null> => end("SIGTERM");
  const crash = async (): Promise<void> => {
    await end("SIGKILL");
  };
  return { client, url, token, process: child, stop, killAll, crash };
}

async function listening(child: ChildProcess, log: string[]): Promise<string> {
  assert.ok(child.stdout !== null);
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const fail = (why: string): void => reject(new Error(`${why}:\n${log.join("\n")}`));
  const timer = setTimeout(() => fail("the daemon did not listen in time"), readyTimeoutMs);
  child.once("exit", (code) => fail(`the daemon ended with ${code}`));
  createInterface({ input: child.stdout }).on("line", (line) => {
    log.push(line);
    const url = /listening on (http:\/\/[^\s"]+)/.exec(line)?.[1];
    if (url !== undefined) resolve(url);
  });
  return promise.finally(() => clearTimeout(timer));
}

/** The test runner ends a file with its group of processes, which this one is not in. */
function endWithUs(child: ChildProcess): void {
  const onTerm = (): void => {
    child.kill("SIGKILL");
    process.exit(128 + constants.signals.SIGTERM);
  };
  process.once("SIGTERM", onTerm);
  child.once("exit", () => process.off("SIGTERM", onTerm));
}
