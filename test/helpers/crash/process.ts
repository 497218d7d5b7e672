import assert from "node:assert/strict";
import { type ChildProcessByStdio, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import type { JournalStep } from "@forkd/host/fork/steps.ts";
import { Client } from "@forkd/sdk";
import { repoRoot } from "../baked.ts";
import type { CrashOrder } from "./daemon.ts";

const listenTimeoutMs = 60_000;
const exitTimeoutMs = 60_000;
/** For a call that the daemon's death cuts off: it must not outlive the test. */
const callTimeoutMs = 60_000;

/** A daemon that has its code in memory and waits for the word to serve. */
export class CrashingDaemon {
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly #exited: Promise<unknown>;
  readonly #listening = Promise.withResolvers<string>();
  #errors = "";
  /** The step at which it ended itself. */
  crashedAt: JournalStep | undefined;

  constructor(dataDir: string, auditLog: string) {
    const serve = ["serve", "--bind", "127.0.0.1:0", "--data-dir", dataDir];
    const child = spawn(
      join(repoRoot, "scripts/node"),
      [join(import.meta.dirname, "daemon.ts"), ...serve, "--audit-log", auditLog],
      { stdio: ["pipe", "pipe", "pipe"] },
    );
    this.#child = child;
    this.#exited = once(child, "exit");
    child.stdin.on("error", () => undefined);
    child.stderr.on("data", (text) => {
      this.#errors = `${this.#errors}${text}`.slice(-4096);
    });
    createInterface({ input: child.stdout }).on("line", (line) => this.#read(line));
    this.#listening.promise.catch(() => undefined);
    void this.#exited.then(() => this.#listening.reject(new Error(`it ended: ${this.#errors}`)));
  }

  /** Tells it to serve, and where to die. */
  order(order: CrashOrder): void {
    this.#child.stdin.write(`${JSON.stringify(order)}\n`);
  }

  /** Rejects when it ends before it listens. */
  async listening(): Promise<Client> {
    const timer = setTimeout(() => {
      this.#listening.reject(new Error(`the daemon does not listen: ${this.#errors}`));
    }, listenTimeoutMs);
    const url = await this.#listening.promise.finally(() => clearTimeout(timer));
    return new Client({ url, timeoutMs: callTimeoutMs });
  }

  /** Resolves when it is gone, by its own hand or because it is killed now. */
  async end(how: "kill" | "wait"): Promise<void> {
    if (how === "kill") this.#child.kill("SIGKILL");
    const late = setTimeout(() => this.#child.kill("SIGKILL"), exitTimeoutMs);
    await this.#exited.finally(() => clearTimeout(late));
  }

  /** SIGTERM; the exit code must be that of an orderly stop. */
  async stop(): Promise<void> {
    this.#child.kill("SIGTERM");
    await this.end("wait");
    assert.equal(this.#child.exitCode, 0, this.#errors);
  }

  #read(line: string): void {
    const url = /^listening on (\S+)$/.exec(line)?.[1];
    if (url !== undefined) this.#listening.resolve(url);
    const step = /^crash (\w+)$/.exec(line)?.[1];
    // The daemon names only its own steps.
    if (step !== undefined) this.crashedAt = step as JournalStep;
  }
}
