import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { ForkdError } from "@forkd/api";
import { createServer } from "@forkd/host/daemon/server.ts";
import { openTracing } from "@forkd/host/daemon/tracing/open-tracing.ts";
import type { Tracing } from "@forkd/host/daemon/tracing/tracing.ts";
import { silentLogger } from "@forkd/host/lib/log.ts";
import { eventually } from "../../helpers/eventually.ts";
import { FakeService } from "../../helpers/fake-service.ts";
import { openOtlpReceiver } from "../../helpers/otlp-receiver.ts";
import { testConfig } from "../../helpers/test-server.ts";

const name = "OTEL_EXPORTER_OTLP_ENDPOINT";

/** Tracing as the daemon opens it; the libraries read the process's own environment. */
async function openFor(context: TestContext, url: string): Promise<Tracing> {
  process.env[name] = url;
  context.after(() => {
    delete process.env[name];
  });
  const tracing = await openTracing({ env: process.env, version: "1.2.3", log: silentLogger });
  return tracing ?? assert.fail("nothing is traced");
}

function serverOf(service: FakeService, tracing: Tracing) {
  const audit = { write: () => undefined };
  return createServer({ service, config: testConfig, log: silentLogger, audit, tracing });
}

const spawn = (n: number, headers: Readonly<Record<string, string>> = {}) => ({
  method: "POST" as const,
  url: "/v1/sandboxes",
  headers: { host: "127.0.0.1:8889", ...headers },
  payload: { snapshot_tag: "base", n },
});

test("a spawn's trace is the caller's, down to each phase of each child", async (t) => {
  await using receiver = await openOtlpReceiver();
  await using tracing = await openFor(t, receiver.url);
  const app = serverOf(new FakeService(), tracing);
  const traceparent = `00-${"a".repeat(32)}-${"b".repeat(16)}-01`;
  assert.equal((await app.inject(spawn(2, { traceparent }))).statusCode, 201);
  const names = ["POST /v1/sandboxes", "spawn", "child", "start", "restore", "identity"];
  const [request, operation, child, ...phases] = await receiver.waitFor(...names);
  assert.ok(request !== undefined && operation !== undefined && child !== undefined);
  assert.deepEqual([request.traceId, request.parentSpanId], ["a".repeat(32), "b".repeat(16)]);
  assert.equal(request.attributes["http.response.status_code"], 201);
  assert.equal(operation.parentSpanId, request.spanId);
  assert.equal(operation.attributes["forkd.outcome"], "ok");
  assert.equal(operation.attributes["forkd.children"], 2);
  assert.equal(child.parentSpanId, operation.spanId);
  assert.match(String(child.attributes["forkd.sandbox_id"]), /^sb-/);
  assert.deepEqual(
    phases.map(({ parentSpanId }) => parentSpanId),
    phases.map(() => child.spanId),
  );
  for (const [at, phase] of phases.entries()) {
    const next = phases[at + 1];
    if (next !== undefined) assert.equal(phase.endNs, next.startNs);
  }
  assert.equal(receiver.spans.filter((span) => span.name === "child").length, 2);
  assert.equal(receiver.resource["service.name"], "forkd-controller");
  assert.equal(receiver.resource["service.version"], "1.2.3");
});

test("what is no trace of a caller begins a new one; probes begin none", async (t) => {
  await using receiver = await openOtlpReceiver();
  const tracing = await openFor(t, receiver.url);
  const app = serverOf(new FakeService(), tracing);
  const headers = { host: "127.0.0.1:8889" };
  for (const traceparent of ["", "nonsense", `00-${"0".repeat(32)}-${"b".repeat(16)}-01`]) {
    await app.inject({ url: "/version", headers: { ...headers, traceparent } });
  }
  await app.inject({ url: "/healthz", headers });
  await app.inject({ url: "/metrics", headers });
  await tracing[Symbol.asyncDispose]();
  assert.deepEqual(
    receiver.spans.map((span) => [span.name, span.parentSpanId]),
    Array.from({ length: 3 }, () => ["GET /version", ""]),
  );
});

test("a caller that does not sample is not traced", async (t) => {
  await using receiver = await openOtlpReceiver();
  const tracing = await openFor(t, receiver.url);
  const app = serverOf(new FakeService(), tracing);
  const traceparent = `00-${"a".repeat(32)}-${"b".repeat(16)}-00`;
  assert.equal((await app.inject(spawn(1, { traceparent }))).statusCode, 201);
  await tracing[Symbol.asyncDispose]();
  assert.deepEqual(receiver.spans, []);
});

test("failures are told, and a thousand children do not fill the queue", async (t) => {
  await using receiver = await openOtlpReceiver();
  await using tracing = await openFor(t, receiver.url);
  const service = new FakeService();
  const app = serverOf(service, tracing);
  assert.equal((await app.inject(spawn(1000))).statusCode, 201);
  service.fault = new ForkdError("engine_failed", "for a test");
  assert.equal((await app.inject(spawn(1))).statusCode, 500);
  await eventually(() => {
    const [good, bad] = receiver.spans.filter((span) => span.name === "spawn");
    assert.equal(good?.attributes["forkd.children"], 1000);
    assert.deepEqual([bad?.isError, bad?.attributes["forkd.outcome"]], [true, "engine_failed"]);
  });
  assert.equal(receiver.spans.filter((span) => span.name === "child").length, 50);
  assert.equal(tracing.droppedSpans(), 0);
});

test("a collector that is down costs a counter", async (t) => {
  // The discard port of loopback: nobody listens.
  await using tracing = await openFor(t, "http://127.0.0.1:9");
  const app = serverOf(new FakeService(), tracing);
  assert.equal((await app.inject(spawn(1))).statusCode, 201);
  await eventually(() => assert.equal(tracing.droppedSpans(), 6), { timeoutMs: 20_000 });
  const headers = { host: "127.0.0.1:8889" };
  const { body } = await app.inject({ url: "/metrics", headers });
  assert.match(body, /^forkd_trace_spans_dropped_total 6$/m);
});

test("without a collector's address nothing is traced, nor loaded", async () => {
  for (const env of [{}, { [name]: "" }, { [name]: "http://x", OTEL_SDK_DISABLED: "true" }]) {
    assert.equal(await openTracing({ env, version: "1.2.3", log: silentLogger }), null);
  }
});
