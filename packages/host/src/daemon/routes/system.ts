import { openApiDocument } from "@forkd/api";
import type { ForkService } from "../../fork/service.ts";
import type { Metrics } from "../metrics.ts";
import type { RouteHandlers } from "../register.ts";

type SystemRoutes = Pick<RouteHandlers, "health" | "version" | "metrics" | "openapi" | "hostFacts">;

export interface SystemParts {
  readonly version: string;
  readonly metrics: Metrics;
  readonly service: ForkService;
}

/** What tells about the daemon itself. */
export function systemRoutes({ version, metrics, service }: SystemParts): SystemRoutes {
  const document = openApiDocument(version);
  return {
    health: () => ({ ok: true }),
    version: () => ({ version, api: "v1" }),
    metrics: () => metrics.render(),
    openapi: () => document,
    hostFacts: async () => {
      const { dataDir, snapshotsDir, freeBytes, totalBytes } = await service.storage();
      return {
        version,
        pid: process.pid,
        data_dir: dataDir,
        snapshots_dir: snapshotsDir,
        snapshots_free_bytes: freeBytes,
        snapshots_total_bytes: totalBytes,
      };
    },
  };
}
