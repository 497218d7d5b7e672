import type { FastifyInstance } from "fastify";
import type { Env } from "../../config/data-paths.ts";
import type { Logger } from "../../lib/log.ts";
import type { OperationWatcher } from "../watched-service.ts";

/** Traces of requests and of what they do, sent to a collector. */
export interface Tracing extends OperationWatcher, AsyncDisposable {
  /** A span for each request, which continues the caller's trace. */
  install(app: FastifyInstance): void;
  /** Spans that no collector took. */
  droppedSpans(): number;
}

export interface TracingOptions {
  readonly env: Env;
  readonly version: string;
  readonly log: Logger;
}

/**
 * Null unless the environment names a collector, as OpenTelemetry's specification has it: nothing
 * of its libraries is loaded then. They read the other OTEL_EXPORTER_OTLP_ variables themselves.
 */
export async function openTracing(options: TracingOptions): Promise<Tracing | null> {
  const { env } = options;
  const endpoint = env["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] || env["OTEL_EXPORTER_OTLP_ENDPOINT"];
  const isOff = env["OTEL_SDK_DISABLED"] === "true" || env["OTEL_TRACES_EXPORTER"] === "none";
  if (endpoint === undefined || endpoint === "" || isOff) return null;
  const { OtlpTracing } = await import("./otlp-tracing.ts");
  return new OtlpTracing(options);
}
