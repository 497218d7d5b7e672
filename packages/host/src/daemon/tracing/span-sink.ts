import type { Context } from "@opentelemetry/api";
import { ExportResultCode } from "@opentelemetry/core";
import type { ReadableSpan, Span, SpanExporter, SpanProcessor } from "@opentelemetry/sdk-trace";
import { BatchSpanProcessor } from "@opentelemetry/sdk-trace";

/** Spans that wait for the collector, some 1 KiB each; what comes then is dropped. */
const waitingMax = 4_096;
const batchMax = 512;
const intervalMs = 1_000;
/** Above the exporter's own bound with its retries, 10 s (OTEL_EXPORTER_OTLP_TIMEOUT). */
const exportTimeoutMs = 15_000;

/** Sends spans in batches, and counts those that are lost: a collector that is down costs no more. */
export class SpanSink implements SpanProcessor {
  readonly #batches: BatchSpanProcessor;
  #waiting = 0;
  dropped = 0;

  constructor(exporter: SpanExporter) {
    this.#batches = new BatchSpanProcessor({
      exporter: this.#counting(exporter),
      maxQueueSize: waitingMax,
      maxExportBatchSize: batchMax,
      scheduledDelayMillis: intervalMs,
      exportTimeoutMillis: exportTimeoutMs,
    });
  }

  onStart(span: Span, parent: Context): void {
    this.#batches.onStart(span, parent);
  }

  onEnd(span: ReadableSpan): void {
    if (this.#waiting >= waitingMax) {
      this.dropped += 1;
      return;
    }
    this.#waiting += 1;
    this.#batches.onEnd(span);
  }

  forceFlush(): Promise<void> {
    return this.#batches.forceFlush();
  }

  shutdown(): Promise<void> {
    return this.#batches.shutdown();
  }

  #counting(exporter: SpanExporter): SpanExporter {
    return {
      export: (spans, done) => {
        exporter.export(spans, (result) => {
          this.#waiting -= spans.length;
          if (result.code !== ExportResultCode.SUCCESS) this.dropped += spans.length;
          done(result);
        });
      },
      shutdown: () => exporter.shutdown(),
    };
  }
}
