import { limits } from "@forkd/api";
import type { FastifyInstance } from "fastify";
import { AuditLog } from "../fork/audit-log.ts";
import type { Logger } from "../lib/log.ts";
import type { ServiceManager } from "../linux/service-manager.ts";
import { formatBind } from "./bind.ts";
import type { DaemonConfig } from "./config.ts";
import { type Credentials, loadCredentials } from "./credentials.ts";
import { endSandboxes, type OpenService } from "./drain.ts";
import { listen } from "./listen.ts";
import { Reloader } from "./reload.ts";
import { createServer, type ServerConfig } from "./server.ts";
import type { DaemonSignals } from "./signals.ts";
import { TokenGate } from "./token.ts";
import type { Tracing } from "./tracing/tracing.ts";

export interface ServeOptions {
  readonly config: DaemonConfig;
  readonly version: string;
  readonly openService: OpenService;
  readonly log: Logger;
  /** Told the address, once all requests are answered; /healthz is before. */
  readonly announce: (url: string) => void;
  readonly manager: ServiceManager;
  readonly signals: DaemonSignals;
  /** Null traces nothing. */
  readonly tracing?: Tracing | null;
}

/** Serves until it is told to stop. Whatever it opened is closed when it returns or throws. */
export async function serve(options: ServeOptions): Promise<void> {
  const { config, log, manager, signals, tracing = null } = options;
  const credentials = await loadCredentials(config, log);
  await using resources = new AsyncDisposableStack();
  const audit = resources.use(await AuditLog.open(config.auditLogPath, log));
  const { service, takenOver } = await options.openService(config, log);
  // Sandboxes survive a restart: the next daemon adopts them.
  resources.defer(async () => {
    // What is not known yet cannot be audited.
    await takenOver.catch(() => undefined);
    if (signals.endSandboxes.aborted) await endSandboxes(service, audit);
    else await service.close("detach");
  });
  if (signals.stop.aborted) return;
  const serverConfig = serverConfigOf(options, credentials);
  const app = createServer({
    service,
    config: serverConfig,
    log,
    audit,
    tracing,
    ready: takenOver,
  });
  resources.defer(() => drain(app, options));
  const bind = await listen(app, config.bind);
  const url = `${config.tls === null ? "http" : "https"}://${formatBind(bind)}`;
  const status = `serving at ${url}`;
  const { tokens } = serverConfig;
  const load = (): Promise<Credentials> => loadCredentials(config, log);
  const reloader = new Reloader({ app, tokens, load, audit, manager, status, log });
  resources.defer(() => reloader.settled());
  await takenOver;
  if (signals.stop.aborted) return;
  options.announce(url);
  log.info("listening", { url, pid: process.pid, version: options.version, paths: config.paths });
  manager.ready(status);
  signals.onReload(() => reloader.request());
  await aborted(signals.stop);
  manager.stopping("waiting for requests in flight");
}

function serverConfigOf(
  { config, version }: ServeOptions,
  { token, tls }: Credentials,
): ServerConfig {
  return {
    bind: config.bind,
    version,
    branchConcurrency: config.branchConcurrency,
    tokens: token === null ? null : new TokenGate(token),
    tls,
    headersMaxMs: limits.requestHeadersMaxMs,
    receiveMaxMs: limits.requestReceiveMaxMs,
    answerStallMaxMs: limits.answerStallMaxMs,
  };
}

/** Stops accepting, waits for requests in flight up to the bound, then cuts what is left. */
async function drain(app: FastifyInstance, { log, signals }: ServeOptions): Promise<void> {
  const { hurry } = signals;
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
