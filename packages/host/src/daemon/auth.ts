import { ForkdError, type Route, routes } from "@forkd/api";
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
    if (openPaths.has(pathOf(request))) return;
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
  const header = request.headers.authorization;
  if (header === undefined || !header.startsWith(bearerPrefix)) return "missing bearer token";
  return tokens.matches(header.slice(bearerPrefix.length).trim())
    ? undefined
    : "invalid bearer token";
}
