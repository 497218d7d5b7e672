import { spawn } from "node:child_process";
import { once } from "node:events";
import { resolve } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { ForkdError } from "@forkd/api";

export interface BenchDaemon extends AsyncDisposable {
  readonly url: string;
}

const startTimeoutMs = 30_000;
const stopTimeoutMs = 30_000;
const controller = resolve(import.meta.dirname, "../bin/forkd-controller");

/** A daemon of this checkout on a free port, which ends with its scope. */
export async function startDaemon(): Promise<BenchDaemon> {
  const child = spawn(controller, ["serve", "--bind", "127.0.0.1:0"], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const stop = async (): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, "exit");
    child.kill("SIGTERM");
    const inTime = await Promise.race([ended.then(() => true), sleep(stopTimeoutMs, false)]);
    if (!inTime) child.kill("SIGKILL");
  };
  const announced = new Promise<string>((found, failed) => {
    createInterface({ input: child.stdout }).on("line", (line) => {
      const url = /^listening on (http\S+)$/.exec(line)?.[1];
      if (url !== undefined) found(url);
    });
    child.once("exit", (code) => {
      failed(new ForkdError("internal", `the daemon ended with ${code} before it listened`));
    });
    child.once("error", failed);
  });
  const late = sleep(startTimeoutMs, undefined, { ref: false }).then(() => {
    throw new ForkdError("deadline_exceeded", `no daemon after ${startTimeoutMs} ms`);
  });
  try {
    const url = await Promise.race([announced, late]);
    return { url, [Symbol.asyncDispose]: stop };
  } catch (error) {
    await stop();
    throw error;
  }
}
