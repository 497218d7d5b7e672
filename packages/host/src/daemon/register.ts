import {
  parseSandboxId,
  parseSnapshotTag,
  type Route,
  type RouteBody,
  type RouteName,
  type RouteParams,
  type RouteResult,
  routes,
} from "@forkd/api";
import type { FastifyInstance } from "fastify";
import { parseBody } from "./body.ts";

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
  readonly body: RouteBody<N>;
}

type RouteHandler<N extends RouteName> = (
  call: RouteCall<N>,
) => Promise<RouteResult<N>> | RouteResult<N>;

/** What answers each route; leaving one out does not compile. */
export type RouteHandlers = { readonly [N in RouteName]: RouteHandler<N> };

type LooseHandler = (call: { readonly params: object; readonly body: unknown }) => unknown;

// Object.keys forgets that the table's keys are its names.
const routeNames = Object.keys(routes) as RouteName[];

/** Puts every row of the route table on the server. */
export function registerRoutes(app: FastifyInstance, handlers: RouteHandlers): void {
  for (const name of routeNames) {
    // The union of handlers has no common call; parseParams and parseBody make what each expects.
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
        const answer = await handler({ params, body: parseBody(route, request.body) });
        reply.status(isWriting(route, answer) ? 202 : route.success.status);
        if (route.success.body === "text") reply.type("text/plain; version=0.0.4; charset=utf-8");
        return reply.send(answer);
      },
    });
  }
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
