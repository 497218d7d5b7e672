import { AsyncLocalStorage } from "node:async_hooks";
import { ForkdError } from "@forkd/api";
import {
  type Attributes,
  type Context,
  ROOT_CONTEXT,
  type Span,
  SpanKind,
  SpanStatusCode,
  type Tracer,
  trace,
} from "@opentelemetry/api";
import { parseTraceParent } from "@opentelemetry/core";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { AlwaysOnSampler, ParentBasedSampler, TracerProvider } from "@opentelemetry/sdk-trace";
import type { FastifyInstance, FastifyRequest } from "fastify";
import type { SpawnedSandbox } from "../../fork/service.ts";
import { withDeadline } from "../../lib/deadline.ts";
import type { Logger } from "../../lib/log.ts";
import { onAnswered } from "../answered.ts";
import type { OperationWatch, WatchedOperation } from "../watched-service.ts";
import { SpanSink } from "./span-sink.ts";
import type { Tracing, TracingOptions } from "./tracing.ts";

/** Children of one spawn that have spans of their own, four each: a thousand would fill the queue. */
const childSpansMax = 50;
/** What a stop waits for the last spans to leave. */
const flushTimeoutMs = 2_000;
/** Asked again and again by machines; in a trace only when the caller has one. */
const quietRoutes: readonly string[] = ["/healthz", "/healthz/", "/metrics"];

/** Spans by OTLP over HTTP, of requests and what they do. */
export class OtlpTracing implements Tracing {
  readonly #log: Logger;
  readonly #sink: SpanSink;
  readonly #provider: TracerProvider;
  readonly #tracer: Tracer;
  /** The span that what is done now belongs to. */
  readonly #current = new AsyncLocalStorage<Context>();
  readonly #requests = new WeakMap<FastifyRequest, Span>();

  constructor({ version, log, env }: TracingOptions) {
    this.#log = log;
    this.#sink = new SpanSink(new OTLPTraceExporter());
    const name = env["OTEL_SERVICE_NAME"] || "forkd-controller";
    this.#provider = new TracerProvider({
      resource: resourceFromAttributes({ "service.name": name, "service.version": version }),
      sampler: new ParentBasedSampler({ root: new AlwaysOnSampler() }),
      spanProcessors: [this.#sink],
    });
    this.#tracer = this.#provider.getTracer("forkd", version);
  }

  install(app: FastifyInstance): void {
    app.addHook("onRequest", (request, _, done) => {
      const context = this.#beginRequest(request);
      if (context === null) done();
      else this.#current.run(context, done);
    });
    onAnswered(app, ({ request, status }) => {
      const span = this.#requests.get(request);
      if (span === undefined) return;
      span.setAttribute("http.response.status_code", status);
      if (status >= 500) span.setStatus({ code: SpanStatusCode.ERROR });
      span.end();
    });
  }

  begin(operation: WatchedOperation): OperationWatch {
    const parent = this.#current.getStore() ?? ROOT_CONTEXT;
    const started = now();
    const span = this.#tracer.startSpan(operation, { startTime: started }, parent);
    const context = trace.setSpan(parent, span);
    let children = 0;
    return {
      spawned: (child) => {
        children += 1;
        if (children <= childSpansMax) this.#traceChild(context, started, child);
      },
      branched: ({ tag, pause_ms: pauseMs }) => {
        span.setAttribute("forkd.snapshot_tag", tag);
        if (pauseMs !== undefined) span.setAttribute("forkd.pause_ms", pauseMs);
      },
      end: (outcome) => {
        span.setAttribute("forkd.outcome", outcome);
        if (children > 0) span.setAttribute("forkd.children", children);
        if (outcome !== "ok") span.setStatus({ code: SpanStatusCode.ERROR, message: outcome });
        span.end();
      },
    };
  }

  droppedSpans(): number {
    return this.#sink.dropped;
  }

  /** What no collector takes in time is lost: no stop waits for one that is down. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await withDeadline(this.#provider.shutdown(), flushTimeoutMs, "sending the last spans");
    } catch (error) {
      const reason = error instanceof ForkdError ? error.message : String(error);
      this.#log.warn("the last spans are lost", { reason });
    }
  }

  #beginRequest(request: FastifyRequest): Context | null {
    const { method, routeOptions, id } = request;
    const route = routeOptions.url ?? "other";
    const caller = callerOf(request);
    if (caller === null && quietRoutes.includes(route)) return null;
    const parent = caller ?? ROOT_CONTEXT;
    const attributes: Attributes = {
      "http.request.method": method,
      "http.route": route,
      "forkd.request_id": id,
    };
    const options = { kind: SpanKind.SERVER, attributes };
    const span = this.#tracer.startSpan(`${method} ${route}`, options, parent);
    this.#requests.set(request, span);
    return trace.setSpan(parent, span);
  }

  /** Its phases are known once it is there. */
  #traceChild(parent: Context, started: number, { info, timings }: SpawnedSandbox): void {
    const attributes = { "forkd.sandbox_id": info.id, "forkd.engine": info.engine };
    const child = this.#tracer.startSpan("child", { startTime: started, attributes }, parent);
    const context = trace.setSpan(parent, child);
    let fromMs = 0;
    const phases = [
      ["start", timings.processMs],
      ["restore", timings.restoredMs],
      ["identity", timings.identityMs],
    ] as const;
    for (const [name, untilMs] of phases) {
      const span = this.#tracer.startSpan(name, { startTime: started + fromMs }, context);
      span.end(started + untilMs);
      fromMs = untilMs;
    }
    child.end(started + fromMs);
  }
}

/** The trace that a request is part of (W3C Trace Context); null when it names none. */
function callerOf({ headers }: FastifyRequest): Context | null {
  const { traceparent } = headers;
  const parsed = typeof traceparent === "string" ? parseTraceParent(traceparent) : null;
  if (parsed === null) return null;
  return trace.setSpanContext(ROOT_CONTEXT, { ...parsed, isRemote: true });
}

/** Milliseconds since the epoch, with fractions. */
function now(): number {
  return performance.timeOrigin + performance.now();
}
