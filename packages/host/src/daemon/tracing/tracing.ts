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
