import { randomUUID } from "node:crypto";
import * as http from "node:http";
import * as https from "node:https";
import { ForkdError, limits } from "@forkd/api";
import { type FastifyInstance, fastify } from "fastify";
import { Operations } from "../fork/operations.ts";
import type { ForkService } from "../fork/service.ts";
import type { Logger } from "../lib/log.ts";
import { onAnswered } from "./answered.ts";
import { type DaemonAudit, installAudit } from "./audit.ts";
import { installAuth } from "./auth.ts";
import type { Bind } from "./bind.ts";
import { installBodyParsers } from "./body.ts";
import { installBodyBudget } from "./body-budget.ts";
import { Connections } from "./connections.ts";
import type { TlsPem } from "./credentials.ts";
import { installErrorDoor } from "./error-door.ts";
import { installFramingGuard } from "./framing.ts";
import { Metrics } from "./metrics.ts";
import { installNotFound } from "./not-found.ts";
import { installOriginGuard } from "./origin.ts";
import { installReadiness } from "./readiness.ts";
import { installReceiveLimit } from "./receive.ts";
import { registerRoutes } from "./register.ts";
import { tlsRules } from "./reload.ts";
import { isDecodable } from "./request-path.ts";
import { evalStreams } from "./routes/eval-stream.ts";
import { eventStreams } from "./routes/events.ts";
import { FileDoor } from "./routes/files.ts";
import { guestGates, guestRoutes } from "./routes/guest.ts";
import { logStreams } from "./routes/log-stream.ts";
import { sandboxRoutes } from "./routes/sandboxes.ts";
import { snapshotRoutes } from "./routes/snapshots.ts";
import { systemRoutes } from "./routes/system.ts";
import { SocketRefusals } from "./socket-refusals.ts";
import { registerStreams } from "./streams.ts";
import type { TokenGate } from "./token.ts";
import type { Tracing } from "./tracing/tracing.ts";
import { asksForSocket, Upgrades } from "./upgrades.ts";
import { watchService } from "./watched-service.ts";

/** What the server needs to know; secrets and certificates are already read. */
export interface ServerConfig {
  readonly bind: Bind;
  readonly version: string;
  readonly branchConcurrency: number;
  /** null serves without authentication. */
  readonly tokens: TokenGate | null;
  /** null serves plain HTTP. */
  readonly tls: TlsPem | null;
  /** How long a client may take to send its headers, and its whole request. */
  readonly headersMaxMs: number;
  readonly receiveMaxMs: number;
  /** How long a client may leave its answer unread. */
  readonly answerStallMaxMs: number;
}

export interface ServerOptions {
  readonly service: ForkService;
  readonly config: ServerConfig;
  readonly log: Logger;
  readonly audit: DaemonAudit;
  /** Null traces nothing. */
  readonly tracing?: Tracing | null;
  /** Until then only what needs no service is answered; absent: it is ready. */
  readonly ready?: Promise<void>;
}

/** How often Node looks for clients that are too slow. */
const slowCheckMs = 500;
const keepAliveMs = 72_000;
const requestIdPattern = /^[A-Za-z0-9._-]{1,64}$/;

/** The daemon's HTTP server over a service; the caller listens and closes. */
export function createServer({
  service: unwatched,
  config,
  log,
  audit,
  tracing = null,
  ready = Promise.resolve(),
}: ServerOptions): FastifyInstance {
  const connections = new Connections(config.answerStallMaxMs);
  const refusals = new SocketRefusals(connections);
  const app = fastify({
    logger: false,
    serverFactory: (handler) => createHttpServer(config, connections, handler),
    clientErrorHandler: refusals.answerUnparsed,
    bodyLimit: limits.requestBodyBytesMax,
    genReqId: requestId,
    // Our own hook answers while closing, in the shape of all other failures.
    return503OnClosing: false,
    // An unreadable path becomes an unknown one, so that it too meets the guards and the audit.
    rewriteUrl: ({ url = "/" }) => (isDecodable(url) ? url : "/unreadable"),
    // Too long an id is refused by its own grammar.
    routerOptions: { maxParamLength: http.maxHeaderSize },
  });
  connections.watch(app.server, config.tls !== null);
  app.addHook("preClose", async () => connections.closeIdle());
  refusals.refuseTunnels(app);
  installAnswerHeaders(app);
  installAccessLog(app, log);
  installAudit(app, audit, refusals);
  tracing?.install(app);
  const droppedSpans = tracing === null ? null : () => tracing.droppedSpans();
  const metrics = new Metrics({ service: unwatched, ...config, droppedSpans });
  metrics.install(app, refusals);
  const watchers = [metrics.operations, ...(tracing === null ? [] : [tracing])];
  const service = watchService(unwatched, watchers);
  installClosing(app);
  installFramingGuard(app);
  installReceiveLimit(app, config.receiveMaxMs);
  installOriginGuard(app, config.bind.host);
  installAuth(app, config.tokens);
  installReadiness(app, ready);
  installBodyBudget(app);
  installBodyParsers(app);
  installErrorDoor(app, log);
  installNotFound(app);
  const files = new FileDoor(service.files);
  const upgrades = new Upgrades();
  upgrades.install(
    app,
    connections.counting((request, response) => app.routing(request, response)),
  );
  const gates = guestGates();
  const handlers = {
    ...systemRoutes({ version: config.version, metrics, service }),
    ...snapshotRoutes(service, log),
    ...sandboxRoutes(service, new Operations(service, audit)),
    ...guestRoutes(service, gates, upgrades.stopping),
    ...files.routes(),
  };
  registerRoutes(app, handlers, upgrades);
  registerStreams(app, {
    ...files.streams(),
    ...evalStreams(service, gates),
    ...logStreams(service, upgrades.stopping),
    ...eventStreams(service.events, upgrades.stopping),
  });
  return app;
}

function createHttpServer(
  config: ServerConfig,
  connections: Connections,
  answer: http.RequestListener,
): http.Server {
  const handler = connections.counting(answer);
  const options: http.ServerOptions = {
    headersTimeout: config.headersMaxMs,
    // Ours has exceptions: see installReceiveLimit.
    requestTimeout: 0,
    connectionsCheckingInterval: slowCheckMs,
    keepAliveTimeout: keepAliveMs,
    shouldUpgradeCallback: (request) =>
      asksForSocket(request) && connections.isFree(request.socket),
    // Ours answers with JSON.
    requireHostHeader: false,
  };
  const server =
    config.tls === null
      ? http.createServer(options, handler)
      : https.createServer(
          {
            ...options,
            ...config.tls,
            ...tlsRules,
            handshakeTimeout: config.headersMaxMs,
          },
          handler,
        );
  server.maxConnections = limits.connectionsMax;
  return server;
}

/** The client's own id when it is harmless to log, else a new one. */
function requestId({ headers }: http.IncomingMessage): string {
  const given = headers["x-request-id"];
  return typeof given === "string" && requestIdPattern.test(given) ? given : randomUUID();
}

function installAnswerHeaders(app: FastifyInstance): void {
  app.addHook("onRequest", async (request, reply) => {
    reply.headers({
      "x-request-id": request.id,
      "cache-control": "no-store",
      "x-content-type-options": "nosniff",
    });
  });
}

function installAccessLog(app: FastifyInstance, log: Logger): void {
  onAnswered(app, ({ request, status, elapsedMs }) => {
    log.info("request", {
      request_id: request.id,
      method: request.method,
      route: request.routeOptions.url ?? null,
      status,
      ms: Math.round(elapsedMs * 10) / 10,
    });
  });
}

/** While the server drains, connections that are still open get a refusal, not new work. */
function installClosing(app: FastifyInstance): void {
  let isClosing = false;
  app.addHook("preClose", async () => {
    isClosing = true;
  });
  app.addHook("onRequest", async () => {
    if (isClosing) throw new ForkdError("busy", "the daemon is stopping");
  });
  // A connection that was kept for a next request would hold up the close.
  app.addHook("onSend", async (_request, reply) => {
    if (isClosing) reply.header("connection", "close");
  });
}
