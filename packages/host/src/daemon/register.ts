import {
  parseSandboxId,
  parseSnapshotTag,
  type Route,
  type RouteBody,
  type RouteName,
  type RouteParams,
  type RouteQuery,
  type RouteResult,
  routes,
} from "@forkd/api";
import type { FastifyInstance, FastifyRequest } from "fastify";
import type { Actor } from "../fork/operations.ts";
import { answerBody } from "./answer-body.ts";
import { clientSignal } from "./answered.ts";
import { parseBody, parseQuery } from "./body.ts";

/** How each path parameter is validated, by its name in the route table. */
const paramParsers = { tag: parseSnapshotTag, id: parseSandboxId };

type ParamParsers = typeof paramParsers;

/** A route's parameters after validation; a name without a parser does not compile. */
type HandlerParams<N extends RouteName> = {
  readonly [K in keyof RouteParams<N> & keyof ParamParsers]: ReturnType<ParamParsers[K]>;
};

/** One validated request. */
export interface RouteCall<N extends RouteName> {
  readonly params: HandlerParams<N>;
  readonly query: RouteQuery<N>;
  readonly body: RouteBody<N>;
  /** Aborts when the client goes away before the answer is sent. */
  readonly signal: AbortSignal;
  readonly actor: Actor;
}

type RouteHandler<N extends RouteName> = (
  call: RouteCall<N>,
) => Promise<RouteResult<N>> | RouteResult<N>;

/** What answers each route; leaving one out does not compile. */
export type RouteHandlers = { readonly [N in RouteName]: RouteHandler<N> };

type LooseHandler = (call: {
  readonly params: object;
  readonly query: object;
  readonly body: unknown;
  readonly signal: AbortSignal;
  readonly actor: Actor;
}) => unknown;

// Object.keys forgets that the table's keys are its names.
const routeNames = Object.keys(routes) as RouteName[];

/** Puts every row of the route table on the server. */
export function registerRoutes(app: FastifyInstance, handlers: RouteHandlers): void {
  for (const name of routeNames) {
    // The union of handlers has no common call; the parsers below make what each expects.
    const handler = handlers[name] as LooseHandler;
    registerRoute(app, routes[name], handler);
  }
}

function registerRoute(app: FastifyInstance, route: Route, handler: LooseHandler): void {
  const url = route.path.replaceAll(/\{(\w+)\}/g, ":$1");
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
        const isText = route.success.body === "text";
        if (isText) reply.type("text/plain; version=0.0.4; charset=utf-8");
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

function parseParams(params: unknown): object {
  const parsed: Record<string, string> = {};
  for (const [name, value] of Object.entries(params ?? {})) {
    if (name === "tag" || name === "id") parsed[name] = paramParsers[name](String(value));
  }
  return parsed;
}
