import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { withDeadline } from "@forkd/host/lib/deadline.ts";

const readyTimeoutMs = 30_000;

export interface InstalledDaemon extends AsyncDisposable {
  readonly url: string;
}

/** Starts a daemon that is no part of this checkout, with the programs of the base system alone. */
export async function startInstalled(program: string, dataDir: string): Promise<InstalledDaemon> {
  const child = spawn(program, ["serve", "--bind", "127.0.0.1:0", "--data-dir", dataDir], {
    env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = once(child, "exit");
  const { promise: listening, resolve } = Promise.withResolvers<string>();
  createInterface({ input: child.stdout }).on("line", (line) => {
    const at = /^listening on (\S+)$/.exec(line)?.[1];
    if (at !== undefined) resolve(at);
  });
  const failed = ended.then(([code]) => assert.fail(`it ended with ${code}`));
  const url = await withDeadline(Promise.race([listening, failed]), readyTimeoutMs, "its start");
  failed.catch(() => undefined);
  return {
    url,
    [Symbol.asyncDispose]: async () => {
      child.kill("SIGTERM");
      const [code] = await ended;
      assert.equal(code, 0);
    },
  };
}
