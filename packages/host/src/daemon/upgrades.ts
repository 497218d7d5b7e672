import { type IncomingMessage, type RequestListener, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { execSubprotocol, ForkdError, limits } from "@forkd/api";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { type WebSocket, WebSocketServer } from "ws";
import { markUpgraded } from "./answered.ts";

/** What a client may take to answer the close of a daemon that stops. */
const closeGraceMs = 1_000;
/** RFC 6455, 7.4: the service restarts. */
const closeCodeRestart = 1012;
const keyPattern = /^[+/0-9A-Za-z]{22}==$/;

/** Whether a request asks for what {@link Upgrades} gives; others are answered as if they did not. */
export function asksForSocket({ headers }: IncomingMessage): boolean {
  return headers.upgrade?.toLowerCase() === "websocket";
}

/**
 * WebSockets of a daemon. A request for one goes through all that other requests go through
 * (guards, token, audit) and becomes one when its handler accepts it.
 */
export class Upgrades {
  readonly #server = new WebSocketServer({
    noServer: true,
    clientTracking: false,
    maxPayload: limits.execMessageBytesMax,
    // Compression costs memory for every connection, and time for output that is gone at once.
    perMessageDeflate: false,
    handleProtocols: (offered) => (offered.has(execSubprotocol) ? execSubprotocol : false),
  });
  readonly #heads = new WeakMap<IncomingMessage, Buffer>();
  readonly #open = new Set<WebSocket>();
  readonly #stopping = new AbortController();

  /** Aborts when the daemon stops, before its connections are closed. */
  get stopping(): AbortSignal {
    return this.#stopping.signal;
  }

  /** `answer` is what answers every other request. */
  install(app: FastifyInstance, answer: RequestListener): void {
    app.server.on("upgrade", (request, socket, head) => {
      // Until it is a WebSocket nobody else listens.
      socket.on("error", () => socket.destroy());
      this.#heads.set(request, head);
      answer(request, answerOn(request, socket));
    });
    app.addHook("preClose", async () => this.#closeAll());
  }

  #requireSocket({ raw }: FastifyRequest): void {
    const { headers } = raw;
    const key = headers["sec-websocket-key"] ?? "";
    const isOurs = headers["sec-websocket-version"] === "13" && keyPattern.test(key);
    if (this.#heads.has(raw) && isOurs) return;
    throw new ForkdError("upgrade_required", "this route is a WebSocket, of version 13");
  }

  /**
   * The request's WebSocket; from here on nothing else answers it. Throws upgrade_required for a
   * request that asks for none, or for another version.
   */
  async accept(request: FastifyRequest, reply: FastifyReply): Promise<WebSocket> {
    this.#requireSocket(request);
    const head = this.#heads.get(request.raw) ?? Buffer.alloc(0);
    const { promise, resolve } = Promise.withResolvers<WebSocket>();
    markUpgraded(reply);
    reply.hijack();
    this.#server.handleUpgrade(request.raw, request.raw.socket, head, resolve);
    const socket = await promise;
    this.#open.add(socket);
    socket.once("close", () => this.#open.delete(socket));
    return socket;
  }

  #closeAll(): void {
    this.#stopping.abort();
    for (const socket of this.#open) {
      socket.close(closeCodeRestart, "the daemon stops");
      setTimeout(() => socket.terminate(), closeGraceMs).unref();
    }
  }
}

/** An answer for a request that Node made none for; the connection ends with it. */
function answerOn(request: IncomingMessage, socket: Duplex): ServerResponse {
  const response = new ServerResponse(request);
  response.shouldKeepAlive = false;
  // Node's own type: the socket of an upgrade is the connection's.
  response.assignSocket(socket as IncomingMessage["socket"]);
  response.once("finish", () => socket.end());
  return response;
}
