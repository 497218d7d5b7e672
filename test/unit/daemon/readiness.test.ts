import assert from "node:assert/strict";
import { test } from "node:test";
import { installErrorDoor } from "@forkd/host/daemon/error-door.ts";
import { installReadiness } from "@forkd/host/daemon/readiness.ts";
import { createServer } from "@forkd/host/daemon/server.ts";
import { TokenGate } from "@forkd/host/daemon/token.ts";
import { silentLogger } from "@forkd/host/lib/log.ts";
import { fastify } from "fastify";
import { FakeService } from "../../helpers/fake-service.ts";
import { problemOf, testConfig } from "../../helpers/test-server.ts";

/** A server with one route, over sandboxes that are taken over as long as the test likes. */
function serverThat({ waitsMs }: { readonly waitsMs: number }) {
  const taken = Promise.withResolvers<void>();
  const app = fastify();
  installReadiness(app, taken.promise, waitsMs);
  installErrorDoor(app, silentLogger);
  app.get("/sandboxes", async () => ["one"]);
  return { taken, ask: () => app.inject("/sandboxes") };
}

const long = { waitsMs: 60_000 };

test("while sandboxes are taken over, a daemon says that it lives and asks for the token", async () => {
  const taken = Promise.withResolvers<void>();
  const token = "a-token-of-the-unit-tests";
  const app = createServer({
    service: new FakeService(),
    config: { ...testConfig, tokens: new TokenGate(token) },
    log: silentLogger,
    audit: { write: () => undefined },
    ready: taken.promise,
  });
  const ask = (url: string, headers: Record<string, string> = {}) =>
    app.inject({ url, headers: { host: "127.0.0.1:8889", ...headers } });
  const waiting = ask("/v1/sandboxes", { authorization: `Bearer ${token}` });
  assert.equal((await ask("/healthz")).statusCode, 200);
  assert.equal((await ask("/v1/sandboxes")).statusCode, 401);
  const first = await Promise.race([waiting, new Promise((resolve) => setImmediate(resolve))]);
  assert.equal(first, undefined, "it was answered before the sandboxes were known");
  taken.resolve();
  assert.equal((await waiting).statusCode, 200);
});

test("a request waits until they are", async () => {
  const { taken, ask } = serverThat(long);
  const asked = ask();
  taken.resolve();
  assert.deepEqual((await asked).json(), ["one"]);
  assert.equal((await ask()).statusCode, 200);
});

test("one that waits too long is told to come again", async () => {
  const answer = await serverThat({ waitsMs: 1 }).ask();
  assert.deepEqual([answer.statusCode, problemOf(answer).code], [503, "busy"]);
  assert.ok(Number(answer.headers["retry-after"]) > 0);
});

test("one that waits for what cannot be had is told at once", async () => {
  const { taken, ask } = serverThat(long);
  const asked = ask();
  taken.reject(new Error("a record cannot be read"));
  assert.equal((await asked).statusCode, 503);
  assert.equal((await ask()).statusCode, 503);
});
