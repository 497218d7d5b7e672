import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { Client } from "@forkd/sdk";
import { repoRoot } from "./baked.ts";
import { makeTmpDir } from "./tmp.ts";

const token = "a-token-of-the-e2e-tests";
const readyTimeoutMs = 30_000;
const stopTimeoutMs = 30_000;

/** The real `forkd-controller`, as an operator starts it, on a free port. */
export interface TestDaemon {
  readonly client: Client;
  readonly url: string;
  readonly token: string;
  readonly process: ChildProcess;
  /** SIGTERM, then the exit code. */
  stop(): Promise<number | null>;
}

export async function startDaemon(dataDir: string): Promise<TestDaemon> {
  const tmp = await makeTmpDir("daemon");
  const tokenFile = join(tmp.path, "token");
  writeFileSync(tokenFile, token, { mode: 0o600 });
  const log: string[] = [];
  const child = spawn(
    join(repoRoot, "bin/forkd-controller"),
    [
      "serve",
      ...["--bind", "127.0.0.1:0", "--data-dir", dataDir, "--token-file", tokenFile],
      ...["--audit-log", join(tmp.path, "audit.log")],
    ],
    { stdio: ["ignore", "pipe", "pipe"] },
  );
  const exited = once(child, "exit").then(() => child.exitCode);
  child.stderr.on("data", (data) => log.push(String(data)));
  const stop = async (): Promise<number | null> => {
    child.kill("SIGTERM");
    const force = setTimeout(() => child.kill("SIGKILL"), stopTimeoutMs);
    const code = await exited;
    clearTimeout(force);
    await tmp[Symbol.asyncDispose]();
    return code;
  };
  try {
    const url = await listening(child, log);
    return running(child, url, stop);
  } catch (error) {
    await stop();
    throw error;
  }
}

function running(child: ChildProcess, url: string, stop: TestDaemon["stop"]): TestDaemon {
  return { client: new Client({ url, token }), url, token, process: child, stop };
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
