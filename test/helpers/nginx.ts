import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { run } from "@forkd/host/lib/exec.ts";
import { eventually } from "./eventually.ts";
import { socketAnswers } from "./fault-proxy.ts";

export interface TestNginx extends AsyncDisposable {
  /** The Unix socket that it listens on: no port can be taken by somebody else. */
  readonly socket: string;
  /** What it serves, and where PUT writes. */
  readonly root: string;
}

const lifeMaxMs = 10 * 60_000;

/** Debian's nginx with its own configuration: files with ranges and entity tags, and DAV's PUT. */
export async function startNginx(dir: string): Promise<TestNginx> {
  const root = join(dir, "root");
  const socket = join(dir, "nginx.sock");
  const config = join(dir, "nginx.conf");
  for (const part of ["root", "tmp"]) await mkdir(join(dir, part), { recursive: true });
  await writeFile(config, configText(dir));
  const stop = new AbortController();
  const argv = ["nginx", "-p", dir, "-c", config, "-e", join(dir, "error.log")];
  const env = { ...process.env, PATH: `${process.env["PATH"]}:/usr/sbin:/sbin` };
  const ended = run(argv, { signal: stop.signal, timeoutMs: lifeMaxMs, env }).catch(
    (error: unknown) => error,
  );
  const dispose = async (): Promise<void> => {
    stop.abort();
    await ended;
  };
  try {
    await eventually(() => socketAnswers(socket), { timeoutMs: 15_000 });
    return { socket, root, [Symbol.asyncDispose]: dispose };
  } catch (error) {
    await dispose();
    throw error;
  }
}

function configText(dir: string): string {
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
  return [
    "daemon off;",
    ...(process.getuid?.() === 0 ? ["user root;"] : []),
    "worker_processes 1;",
    `pid ${dir}/nginx.pid;`,
    "events { worker_connections 64; }",
    "http {",
    "  access_log off;",
    ...temporary.map((name) => `  ${name}_temp_path ${dir}/tmp/${name};`),
    "  client_max_body_size 1g;",
    "  server {",
    `    listen unix:${dir}/nginx.sock;`,
    `    root ${dir}/root;`,
    "    location / { dav_methods PUT; create_full_put_path on; dav_access user:rw; }",
    "    location /private/ { return 403; }",
    "  }",
    "}",
    "",
  ].join("\n");
}
