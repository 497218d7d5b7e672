import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { startServer } from "./server-program.ts";

export interface TestRegistry extends AsyncDisposable {
  /** 127.0.0.1:PORT, plain HTTP. */
  readonly host: string;
}

const startTimeoutMs = 15_000;

/** A real registry on a free loopback port, with its storage below `dir`. */
export async function startRegistry(dir: string): Promise<TestRegistry> {
  const storage = join(dir, "storage");
  await mkdir(storage, { recursive: true });
  const config = join(dir, "config.yml");
  await writeFile(config, configText(storage));
  const server = await startServer({
    argv: ["docker-registry", "serve", config],
    listening: /listening on (127\.0\.0\.1:\d+)/,
    startTimeoutMs,
  });
  return { host: server.address, [Symbol.asyncDispose]: () => server[Symbol.asyncDispose]() };
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
