import { ForkdError, type Route, routes, tokenSubprotocolPrefix } from "@forkd/api";
import type { FastifyInstance, FastifyRequest } from "fastify";
import type { Principal } from "../fork/audit-log.ts";
import { pathOf } from "./request-path.ts";
import type { TokenGate } from "./token.ts";

declare module "fastify" {
  interface FastifyRequest {
    principal: Principal;
  }
}

const openPaths: ReadonlySet<string> = new Set(
  Object.values<Route>(routes)
    .filter((route) => route.open === true)
    .flatMap((route) => [route.path, `${route.path}/`]),
);

/** Whether a request is for a route that asks for no token. */
export function isOpenPath(request: FastifyRequest): boolean {
  return openPaths.has(pathOf(request));
}

const bearerPrefix = "Bearer ";

/** Asks every request for the token, also those that no route answers. */
export function installAuth(app: FastifyInstance, tokens: TokenGate | null): void {
  app.decorateRequest("principal", "none");
  if (tokens === null) {
    app.addHook("onRequest", async (request) => {
      request.principal = "local";
    });
    return;
  }
  app.addHook("onRequest", async (request, reply) => {
    if (isOpenPath(request)) return;
    const problem = findProblem(request, tokens);
    if (problem === undefined) {
      request.principal = "token";
      return;
    }
    reply.header("www-authenticate", 'Bearer realm="forkd"');
    throw new ForkdError("unauthorized", problem);
  });
}

/** The texts are upstream's; clients print them. */
function findProblem(request: FastifyRequest, tokens: TokenGate): string | undefined {
  const token = tokenOf(request);
  if (token === undefined) return "missing bearer token";
  return tokens.matches(token) ? undefined : "invalid bearer token";
}

/** By the header, or for a WebSocket by the subprotocol of clients that cannot set headers. */
function tokenOf({ headers }: FastifyRequest): string | undefined {
  const { authorization } = headers;
  if (authorization?.startsWith(bearerPrefix) === true) {
    return authorization.slice(bearerPrefix.length).trim();
  }
  if (authorization !== undefined || headers.upgrade === undefined) return undefined;
  const offered = (headers["sec-websocket-protocol"] ?? "").split(",").map((word) => word.trim());
  const carrier = offered.find((word) => word.startsWith(tokenSubprotocolPrefix));
  if (carrier === undefined) return undefined;
  return Buffer.from(carrier.slice(tokenSubprotocolPrefix.length), "base64url").toString("utf8");
}
