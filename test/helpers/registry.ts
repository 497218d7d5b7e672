import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { withDeadline } from "@forkd/host/lib/deadline.ts";
import { run } from "@forkd/host/lib/exec.ts";

export interface TestRegistry extends AsyncDisposable {
  /** 127.0.0.1:PORT, plain HTTP. */
  readonly host: string;
}

const startTimeoutMs = 15_000;
const lifeMaxMs = 10 * 60_000;

/** A real registry on a free loopback port, with its storage below `dir`. */
export async function startRegistry(dir: string): Promise<TestRegistry> {
  const storage = join(dir, "storage");
  await mkdir(storage, { recursive: true });
  const config = join(dir, "config.yml");
  await writeFile(config, configText(storage));
  const stop = new AbortController();
  const listening = Promise.withResolvers<string>();
  const ended = run(["docker-registry", "serve", config], {
    signal: stop.signal,
    timeoutMs: lifeMaxMs,
    onLine: (line) => {
      const host = /listening on (127\.0\.0\.1:\d+)/.exec(line)?.[1];
      if (host !== undefined) listening.resolve(host);
    },
  });
  const finished = ended.then(
    () => undefined,
    (error: unknown) => listening.reject(error),
  );
  const dispose = async (): Promise<void> => {
    stop.abort();
    await finished;
  };
  try {
    const host = await withDeadline(listening.promise, startTimeoutMs, "the registry's start");
    return { host, [Symbol.asyncDispose]: dispose };
  } catch (error) {
    await dispose();
    throw error;
  }
}

function configText(storage: string): string {
  return [
    "version: 0.1",
    "log: {level: info}",
    `storage: {filesystem: {rootdirectory: ${storage}}}`,
    "http: {addr: '127.0.0.1:0'}",
    "",
  ].join("\n");
}
