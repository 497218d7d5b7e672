import { createServer } from "node:http";
import { eventually } from "./eventually.ts";

/** A span as a collector gets it (OTLP/JSON), with its attributes as an object. */
export interface ReceivedSpan {
  readonly name: string;
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId: string;
  readonly startNs: bigint;
  readonly endNs: bigint;
  readonly attributes: Readonly<Record<string, unknown>>;
  readonly isError: boolean;
}

/** A collector on loopback: OTLP over HTTP, as JSON. */
export interface OtlpReceiver extends AsyncDisposable {
  readonly url: string;
  readonly spans: ReceivedSpan[];
  /** What says who sends, of the last batch. */
  resource: Readonly<Record<string, unknown>>;
  /** Waits until spans of these names have come; the first of each. */
  waitFor(...names: readonly string[]): Promise<ReceivedSpan[]>;
}

export async function openOtlpReceiver(): Promise<OtlpReceiver> {
  const spans: ReceivedSpan[] = [];
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      if (request.url === "/v1/traces") take(JSON.parse(Buffer.concat(chunks).toString("utf8")));
      response.writeHead(200, { "content-type": "application/json" }).end("{}");
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  const receiver: OtlpReceiver = {
    url: `http://127.0.0.1:${address.port}`,
    spans,
    resource: {},
    waitFor: async (...names) =>
      await eventually(() =>
        names.map((name) => {
          const found = spans.find((span) => span.name === name);
          if (found === undefined) throw new Error(`no span ${name} in ${namesOf(spans)}`);
          return found;
        }),
      ),
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  const take = (body: OtlpBody): void => {
    for (const { resource, scopeSpans } of body.resourceSpans) {
      receiver.resource = attributesOf(resource.attributes);
      for (const each of scopeSpans) spans.push(...each.spans.map(receivedOf));
    }
  };
  return receiver;
}

const namesOf = (spans: readonly ReceivedSpan[]): string => spans.map(({ name }) => name).join();

/** The part of opentelemetry/proto/trace/v1 that is looked at. */
interface OtlpBody {
  readonly resourceSpans: readonly {
    readonly resource: { readonly attributes: readonly OtlpAttribute[] };
    readonly scopeSpans: readonly { readonly spans: readonly OtlpSpan[] }[];
  }[];
}

interface OtlpAttribute {
  readonly key: string;
  readonly value: Readonly<Record<string, unknown>>;
}

interface OtlpSpan {
  readonly name: string;
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly startTimeUnixNano: string;
  readonly endTimeUnixNano: string;
  readonly attributes: readonly OtlpAttribute[];
  readonly status?: { readonly code?: number };
}

const errorStatus = 2;

function receivedOf(span: OtlpSpan): ReceivedSpan {
  return {
    name: span.name,
    traceId: span.traceId,
    spanId: span.spanId,
    parentSpanId: span.parentSpanId ?? "",
    startNs: BigInt(span.startTimeUnixNano),
    endNs: BigInt(span.endTimeUnixNano),
    attributes: attributesOf(span.attributes),
    isError: span.status?.code === errorStatus,
  };
}

function attributesOf(attributes: readonly OtlpAttribute[]): Record<string, unknown> {
  return Object.fromEntries(attributes.map(({ key, value }) => [key, Object.values(value)[0]]));
}
