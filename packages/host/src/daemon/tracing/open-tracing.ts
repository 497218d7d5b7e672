import type { Tracing, TracingOptions } from "./tracing.ts";

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
