import { openApiDocument } from "@forkd/api";
import type { Metrics } from "../metrics.ts";
import type { RouteHandlers } from "../register.ts";

type SystemRoutes = Pick<RouteHandlers, "health" | "version" | "metrics" | "openapi">;

/** What tells about the daemon itself. */
export function systemRoutes(version: string, metrics: Metrics): SystemRoutes {
  const document = openApiDocument(version);
  return {
    health: () => ({ ok: true }),
    version: () => ({ version, api: "v1" }),
    metrics: () => metrics.render(),
    openapi: () => document,
  };
}
