import {
  type CallName,
  callNames,
  parseExecId,
  parseSandboxId,
  parseSnapshotTag,
  type Route,
  type RouteBody,
  type RouteName,
  type RouteParams,
  type RouteQuery,
  type RouteResult,
  routes,
  type SocketName,
} from "@forkd/api";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { WebSocket } from "ws";
import type { Actor } from "../fork/operation-log.ts";
import { answerBody } from "./answer-body.ts";
import { clientSignal } from "./answered.ts";
import { parseBody, parseQuery } from "./body.ts";
import type { Upgrades } from "./upgrades.ts";

/** How each path parameter is validated, by its name in the route table. */
const paramParsers = { tag: parseSnapshotTag, id: parseSandboxId, exec_id: parseExecId };

const plainText = "text/plain; charset=utf-8";

type ParamParsers = typeof paramParsers;

/** A route's parameters after validation; a name without a parser does not compile. */
export type HandlerParams<N extends RouteName> = {
  readonly [K in keyof RouteParams<N> & keyof ParamParsers]: ReturnType<ParamParsers[K]>;
};

/** One validated request. */
export interface RouteCall<N extends CallName> {
  readonly params: HandlerParams<N>;
  readonly query: RouteQuery<N>;
  readonly body: RouteBody<N>;
  /** Aborts when the client goes away before the answer is sent. */
  readonly signal: AbortSignal;
  readonly actor: Actor;
}

/** One validated request for a WebSocket. */
export interface SocketCall<N extends SocketName> {
  readonly params: HandlerParams<N>;
  /**
   * Makes the request a WebSocket; failures after that are the handler's to tell. Throws
   * upgrade_required: then a client may have asked why it got none, so refuse it first.
   */
  readonly accept: () => Promise<WebSocket>;
  readonly actor: Actor;
}

/** Resolves when the connection is over. */
type SocketHandler<N extends SocketName> = (call: SocketCall<N>) => Promise<void>;

type RouteHandler<N extends CallName> = (
  call: RouteCall<N>,
) => Promise<RouteResult<N>> | RouteResult<N>;

/** What answers each route; leaving one out does not compile. */
export type RouteHandlers = { readonly [N in CallName]: RouteHandler<N> } & {
  readonly [N in SocketName]: SocketHandler<N>;
};

type LooseHandler = (call: {
  readonly params: object;
  readonly query: object;
  readonly body: unknown;
  readonly signal: AbortSignal;
  readonly actor: Actor;
}) => unknown;

type LooseSocketHandler = (call: {
  readonly params: object;
  readonly accept: () => Promise<WebSocket>;
  readonly actor: Actor;
}) => Promise<void>;

/** Puts every row of the route table on the server. */
export function registerRoutes(
  app: FastifyInstance,
  handlers: RouteHandlers,
  upgrades: Upgrades,
): void {
  for (const name of callNames) {
    // The union of handlers has no common call; the parsers below make what each expects.
    const handler = handlers[name] as LooseHandler;
    registerRoute(app, routes[name], handler);
  }
  registerSocket(app, upgrades, handlers.streamExec as LooseSocketHandler);
}

/** The one WebSocket of the table. */
function registerSocket(
  app: FastifyInstance,
  upgrades: Upgrades,
  handler: LooseSocketHandler,
): void {
  app.route({
    method: "GET",
    url: urlOf(routes.streamExec),
    handler: async (request: FastifyRequest, reply: FastifyReply) => {
      const params = parseParams(request.params);
      const accept = (): Promise<WebSocket> => upgrades.accept(request, reply);
      await handler({ params, accept, actor: actorOf(request) });
      return reply;
    },
  });
}

function urlOf({ path }: Route): string {
  return path.replaceAll(/\{(\w+)\}/g, ":$1");
}

function registerRoute(app: FastifyInstance, route: Route, handler: LooseHandler): void {
  const url = urlOf(route);
  const urls = route.open === true ? [url, `${url}/`] : [url];
  for (const each of urls) {
    app.route({
      method: route.method,
      url: each,
      handler: async (request, reply) => {
        const params = parseParams(request.params);
        const query = parseQuery(route, request.query);
        const body = parseBody(route, request.body);
        const signal = clientSignal(reply);
        const answer = await handler({ params, query, body, signal, actor: actorOf(request) });
        reply.status(isWriting(route, answer) ? 202 : route.success.status);
        if (route.success.body === "text") reply.type(route.success.textType ?? plainText);
        else if (route.success.body !== null) reply.type("application/json; charset=utf-8");
        return reply.send(answerBody(answer));
      },
    });
  }
}

function actorOf({ principal, ip, id }: FastifyRequest): Actor {
  return { principal, remote: ip, requestId: id };
}

function isWriting({ success }: Route, answer: unknown): boolean {
  if (success.mayBeWriting !== true || typeof answer !== "object" || answer === null) return false;
  return "status" in answer && answer.status === "writing";
}

/** Path parameters after validation. */
export function parseParams(params: unknown): object {
  const parsed: Record<string, string> = {};
  for (const [name, value] of Object.entries(params ?? {})) {
    if (name === "tag" || name === "id" || name === "exec_id")
      parsed[name] = paramParsers[name](String(value));
  }
  return parsed;
}
