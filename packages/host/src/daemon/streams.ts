import { Readable } from "node:stream";
import {
  type Route,
  type RouteBody,
  type RouteQuery,
  type RouteResult,
  routes,
  type StreamName,
  streamNames,
} from "@forkd/api";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { clientSignal } from "./answered.ts";
import { parseBody, parseQuery } from "./body.ts";
import { type HandlerParams, parseParams } from "./register.ts";

declare module "fastify" {
  interface FastifyContextConfig {
    /** The route's handler reads the body itself, as it comes. */
    readonly isStream?: true;
  }
}

/** What a stream route answers with. */
export class StreamAnswer {
  readonly status: 200 | 206;
  readonly headers: Readonly<Record<string, string>>;
  readonly bytes: AsyncIterable<Uint8Array>;

  constructor(
    bytes: AsyncIterable<Uint8Array>,
    headers: Readonly<Record<string, string>>,
    status: 200 | 206 = 200,
  ) {
    this.status = status;
    this.headers = headers;
    this.bytes = bytes;
  }
}

/** One validated request whose body, or whose answer, is a stream. */
export interface StreamCall<N extends StreamName> {
  readonly params: HandlerParams<N>;
  readonly query: RouteQuery<N>;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  /** Of a row whose body is JSON: what it says. */
  readonly body: RouteBody<N>;
  /** The body of any other. It throws when the client goes away before its end. */
  readonly bytes: AsyncIterable<Uint8Array>;
  /** Aborts when the client goes away before the answer is sent. */
  readonly signal: AbortSignal;
}

type StreamHandler<N extends StreamName> = (
  call: StreamCall<N>,
) => Promise<RouteResult<N> | StreamAnswer>;

/** What answers each stream route; leaving one out does not compile. */
export type StreamHandlers = { readonly [N in StreamName]: StreamHandler<N> };

type LooseHandler = (call: {
  readonly params: object;
  readonly query: object;
  readonly body: unknown;
  readonly headers: FastifyRequest["headers"];
  readonly bytes: AsyncIterable<Uint8Array>;
  readonly signal: AbortSignal;
}) => Promise<unknown>;

/** What is read ahead of a client that takes its time. */
const readAheadBytes = 64 * 1024;
/** A client that still sends when it has its answer may go on for so long, to read that answer. */
const lingerMs = 5_000;

/**
 * Puts the rows whose bodies or answers are streams on the server. But for those that take JSON,
 * nothing else there reads their bodies.
 */
export function registerStreams(app: FastifyInstance, handlers: StreamHandlers): void {
  app.register((scope, _options, done) => {
    scope.removeAllContentTypeParsers();
    scope.addContentTypeParser("*", (_request, _payload, done) => done(null));
    for (const name of streamNames) {
      // The union of handlers has no common call; the parsers below make what each expects.
      const handler = handlers[name] as LooseHandler;
      registerStream(takesJson(routes[name]) ? app : scope, routes[name], handler);
    }
    done();
  });
}

function takesJson({ request }: Route): boolean {
  return request !== null && request !== "bytes";
}

function registerStream(scope: FastifyInstance, route: Route, handler: LooseHandler): void {
  scope.route({
    method: route.method,
    url: route.path.replaceAll(/\{(\w+)\}/g, ":$1"),
    ...(takesJson(route) ? {} : { config: { isStream: true } }),
    handler: async (request, reply) => {
      if (!takesJson(route)) endLateSenders(request, reply);
      const answer = await handler({
        params: parseParams(request.params),
        query: parseQuery(route, request.query),
        body: parseBody(route, request.body),
        headers: request.headers,
        // The end of the reading must not be the end of the connection: an answer follows.
        bytes: request.raw.iterator({ destroyOnReturn: false }),
        signal: clientSignal(reply),
      });
      if (answer instanceof StreamAnswer) return sendStream(reply, answer);
      reply.status(route.success.status).type("application/json; charset=utf-8");
      return reply.send(answer);
    },
  });
}

function sendStream(reply: FastifyReply, { status, headers, bytes }: StreamAnswer): FastifyReply {
  const options = { objectMode: false, highWaterMark: readAheadBytes };
  return reply.status(status).headers(headers).send(Readable.from(bytes, options));
}

/** Whoever is refused may not go on sending for ever; Node would read it all. */
function endLateSenders({ raw }: FastifyRequest, reply: FastifyReply): void {
  reply.raw.once("finish", () => {
    if (raw.complete) return;
    const timer = setTimeout(() => {
      if (!raw.complete) raw.socket.destroy();
    }, lingerMs);
    raw.socket.once("close", () => clearTimeout(timer));
  });
}
