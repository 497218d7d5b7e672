import { readFile } from "node:fs/promises";
import { ForkdError, limits } from "@forkd/api";
import type { FastifyInstance } from "fastify";
import { AuditLog } from "../fork/audit-log.ts";
import type { ForkService } from "../fork/service.ts";
import type { Logger } from "../lib/log.ts";
import { formatBind } from "./bind.ts";
import type { DaemonConfig } from "./config.ts";
import { listen } from "./listen.ts";
import { createServer, type ServerConfig } from "./server.ts";
import { loadToken } from "./token.ts";

export interface ServeOptions {
  readonly config: DaemonConfig;
  readonly version: string;
  readonly openService: (config: DaemonConfig, log: Logger) => Promise<ForkService>;
  readonly log: Logger;
  /** Told the address, once requests are answered. */
  readonly announce: (url: string) => void;
  /** Aborts to stop: no new connections, requests in flight finish within the drain's bound. */
  readonly stop: AbortSignal;
  /** Aborts to cut the drain short. */
  readonly hurry: AbortSignal;
}

/** Sandboxes survive a restart: the next daemon adopts them. `forkd kill --all` ends them. */
const sandboxesAtStop = "detach";

/** Serves until `stop` aborts. Whatever it opened is closed when it returns or throws. */
export async function serve(options: ServeOptions): Promise<void> {
  const { config, log } = options;
  const serverConfig = await loadServerConfig(config, options.version);
  await using resources = new AsyncDisposableStack();
  const audit = resources.use(await AuditLog.open(config.auditLogPath, log));
  const service = await options.openService(config, log);
  resources.defer(() => service.close(sandboxesAtStop));
  if (options.stop.aborted) return;
  const app = createServer({ service, config: serverConfig, log, audit });
  resources.defer(() => drain(app, options));
  const bind = await listen(app, config.bind);
  const url = `${config.tls === null ? "http" : "https"}://${formatBind(bind)}`;
  options.announce(url);
  log.info("listening", { url, pid: process.pid, version: options.version, paths: config.paths });
  await aborted(options.stop);
}

async function loadServerConfig(config: DaemonConfig, version: string): Promise<ServerConfig> {
  return {
    bind: config.bind,
    version,
    branchConcurrency: config.branchConcurrency,
    token: config.tokenFile === null ? null : await loadToken(config.tokenFile),
    tls: await loadTls(config.tls),
    headersMaxMs: limits.requestHeadersMaxMs,
    receiveMaxMs: limits.requestReceiveMaxMs,
    answerStallMaxMs: limits.answerStallMaxMs,
  };
}

async function loadTls(files: DaemonConfig["tls"]): Promise<ServerConfig["tls"]> {
  if (files === null) return null;
  return { cert: await readPem(files.certFile), key: await readPem(files.keyFile) };
}

async function readPem(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new ForkdError("config_invalid", `cannot read the TLS file: ${reason}`, { cause: error });
  }
}

/** Stops accepting, waits for requests in flight up to the bound, then cuts what is left. */
async function drain(app: FastifyInstance, { log, hurry }: ServeOptions): Promise<void> {
  log.info("stopping: waiting for requests in flight");
  const closed = app.close();
  const cut = (): void => {
    log.warn("stopping: cutting the requests that are left");
    app.server.closeAllConnections();
  };
  const timer = setTimeout(cut, limits.drainMaxMs);
  hurry.addEventListener("abort", cut, { once: true });
  if (hurry.aborted) cut();
  try {
    await closed;
  } finally {
    clearTimeout(timer);
    hurry.removeEventListener("abort", cut);
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
