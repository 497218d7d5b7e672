import { ForkdError, type Route, routes } from "@forkd/api";
import type { FastifyInstance } from "fastify";
import { isDecodable, pathOf } from "./request-path.ts";

const documentedPatterns = Object.values<Route>(routes).map(({ method, path }) => ({
  method,
  pattern: new RegExp(`^${path.replaceAll(".", "\\.").replaceAll(/\{\w+\}/g, "[^/]+")}$`),
}));

/** The methods that a path knows, for the Allow header; empty for an unknown path. */
function allowedMethods(path: string): readonly string[] {
  const methods = documentedPatterns.filter(({ pattern }) => pattern.test(path));
  return methods.flatMap(({ method }) => (method === "GET" ? ["GET", "HEAD"] : [method]));
}

/** Tells an unknown path (404) from a wrong method (405) and from an unreadable one (400). */
export function installNotFound(app: FastifyInstance): void {
  app.setNotFoundHandler((request, reply) => {
    const path = pathOf(request);
    const shown = path.slice(0, 200);
    if (!isDecodable(path)) {
      throw new ForkdError("bad_request", `the path ${shown} is not percent-encoded text`);
    }
    if (!isDecodable(request.originalUrl)) {
      throw new ForkdError("bad_request", "the query is not percent-encoded UTF-8", {
        hint: "name a file whose path is not UTF-8 with path_b64",
      });
    }
    const methods = allowedMethods(path);
    if (methods.length === 0) throw new ForkdError("route_not_found", `route ${shown} not found`);
    reply.header("allow", methods.join(", "));
    throw new ForkdError("method_not_allowed", `${request.method} is not a method of ${shown}`);
  });
}
