import assert from "node:assert/strict";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { type ErrorCode, errorTable, ForkdError, limits } from "@forkd/api";
import type { LightMyRequestResponse } from "fastify";
import { eventually } from "../../helpers/eventually.ts";
import { listenForTest, problemOf, TestServer } from "../../helpers/test-server.ts";
import { makeTmpDir } from "../../helpers/tmp.ts";

const times = <T>(count: number, make: () => T): T[] => Array.from({ length: count }, make);

async function spawn(server: TestServer, n: number): Promise<string[]> {
  const response = await server.call("createSandboxes", { body: { snapshot_tag: "base", n } });
  return response.json().map(({ id }: { id: string }) => id);
}

const exec = (server: TestServer, id: string) =>
  server.call("execSandbox", { params: { id }, body: { args: ["true"] } });

const evaluate = (server: TestServer, id: string) =>
  server.call("evalSandbox", { params: { id }, body: { code: "1" } });

const ping = (server: TestServer, id: string) => server.call("pingSandbox", { params: { id } });

function assertRefused(answer: LightMyRequestResponse, code: ErrorCode, retryAfter: string): void {
  assert.equal(problemOf(answer).code, code);
  assert.equal(answer.headers["retry-after"], retryAfter);
}

test("every retryable failure says when to retry, and no other does", async () => {
  const server = new TestServer();
  for (const [code, { retryAfterSecs }] of Object.entries(errorTable)) {
    // The cast is the table's own key.
    server.service.fault = new ForkdError(code as ErrorCode, "no");
    const answer = await server.inject({
      method: "POST",
      url: "/v1/sandboxes",
      payload: { snapshot_tag: "base" },
    });
    const expected = retryAfterSecs === null ? undefined : String(retryAfterSecs);
    assert.equal(answer.headers["retry-after"], expected, code);
  }
  server.service.fault = new ForkdError("busy", "no", { retryAfterSecs: 42 });
  const answer = await server.call("createSandboxes", { body: { snapshot_tag: "base" } });
  assertRefused(answer, "busy", "42");
});

test("no sandbox takes the places of the others, and a full one can still be asked", async () => {
  const server = new TestServer();
  const [full = "", other = ""] = await spawn(server, 2);
  const held = Promise.withResolvers<void>();
  server.service.hold = held.promise;
  const running = times(limits.execsPerSandboxMax, () => exec(server, full));
  await eventually(() => assert.equal(server.service.working, running.length));
  assertRefused(await evaluate(server, full), "too_many_requests", "1");
  server.service.hold = Promise.resolve();
  assert.equal((await exec(server, other)).statusCode, 200);
  assert.equal((await ping(server, full)).statusCode, 200);
  held.resolve();
  for (const answer of await Promise.all(running)) assert.equal(answer.statusCode, 200);
  assert.equal((await evaluate(server, full)).statusCode, 200);
});

test("the calls of all sandboxes together are bounded", async () => {
  const server = new TestServer();
  const ids = await spawn(server, Math.ceil(limits.concurrentExecsMax / limits.execsPerSandboxMax));
  const held = Promise.withResolvers<void>();
  server.service.hold = held.promise;
  const running = times(limits.concurrentExecsMax, () => "").map((_, index) =>
    exec(server, ids[Math.floor(index / limits.execsPerSandboxMax)] ?? ""),
  );
  await eventually(() => assert.equal(server.service.working, running.length));
  assertRefused(await ping(server, ids[0] ?? ""), "too_many_requests", "1");
  held.resolve();
  for (const answer of await Promise.all(running)) assert.equal(answer.statusCode, 200);
});

test("pings of one sandbox are bounded by themselves", async () => {
  const server = new TestServer();
  const [id = ""] = await spawn(server, 1);
  const held = Promise.withResolvers<void>();
  server.service.hold = held.promise;
  const running = times(limits.pingsPerSandboxMax, () => ping(server, id));
  assertRefused(await ping(server, id), "too_many_requests", "1");
  held.resolve();
  for (const answer of await Promise.all(running)) assert.equal(answer.statusCode, 200);
});

test("spawns in flight are bounded", async () => {
  const server = new TestServer();
  const held = Promise.withResolvers<void>();
  server.service.hold = held.promise;
  const running = times(limits.concurrentSpawnsMax, () => spawn(server, 1));
  const refused = await server.call("createSandboxes", { body: { snapshot_tag: "base" } });
  assertRefused(refused, "too_many_requests", "1");
  held.resolve();
  await Promise.all(running);
});

test("bakes are bounded, and the refusal says by what", async () => {
  const server = new TestServer();
  await using tmp = await makeTmpDir("pressure");
  const [kernel, rootfs] = [join(tmp.path, "kernel"), join(tmp.path, "rootfs")];
  for (const path of [kernel, rootfs]) await writeFile(path, "x");
  const bake = (tag: string) => server.call("createSnapshot", { body: { tag, kernel, rootfs } });
  const held = Promise.withResolvers<void>();
  server.service.hold = held.promise;
  const running = times(limits.concurrentBakesMax, () => "").map((_, index) => bake(`t${index}`));
  await eventually(() => assert.equal(server.service.working, limits.concurrentBakesMax));
  const refused = await bake("one-more");
  assertRefused(refused, "busy", "15");
  assert.match(problemOf(refused).error, /^2 snapshots are being made already$/);
  held.resolve();
  for (const answer of await Promise.all(running)) assert.equal(answer.statusCode, 201);
});

/** A connection that announces a body and sends none of it. */
async function announce(port: number, length: string): Promise<Socket> {
  const socket = connect(port, "127.0.0.1");
  await once(socket, "connect");
  socket.write(`POST /v1/sandboxes HTTP/1.1\r\nHost: localhost\r\n${length}\r\n\r\n`);
  return socket;
}

test("what all bodies hold together is bounded", async (context) => {
  const server = new TestServer();
  const port = await listenForTest(server, context);
  const count = limits.requestBodiesBytesMax / limits.requestBodyBytesMax;
  const whole = `Content-Length: ${limits.requestBodyBytesMax}`;
  const lengths = Array.from({ length: count }, (_, index) =>
    index % 2 === 0 ? whole : "Transfer-Encoding: chunked",
  );
  const holders = await Promise.all(lengths.map((length) => announce(port, length)));
  try {
    await eventually(async () => {
      const body = { snapshot_tag: "base" };
      assertRefused(await server.call("createSandboxes", { body }), "too_many_requests", "1");
    });
    assert.equal((await server.call("listSandboxes")).statusCode, 200);
  } finally {
    for (const holder of holders) holder.destroy();
  }
  await eventually(async () => assert.equal((await spawn(server, 1)).length, 1));
});

test("a client that goes away takes its work with it, and is audited", async (context) => {
  const server = new TestServer();
  const [id = ""] = await spawn(server, 1);
  const port = await listenForTest(server, context);
  const held = Promise.withResolvers<void>();
  context.after(() => held.resolve());
  server.service.hold = held.promise;
  const requests: [string, object][] = [
    [`/v1/sandboxes/${id}/exec`, { args: ["sleep"] }],
    [`/v1/sandboxes/${id}/eval`, { code: "loop()" }],
    ["/v1/sandboxes", { snapshot_tag: "base" }],
  ];
  for (const [path, body] of requests) {
    const audited = server.audited.length;
    const gone = server.service.abandoned;
    const abort = new AbortController();
    const answer = fetch(`http://127.0.0.1:${port}${path}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
      signal: abort.signal,
    });
    answer.catch(() => undefined);
    await eventually(() => assert.equal(server.service.working, 1));
    abort.abort();
    await eventually(() => assert.equal(server.service.abandoned, gone + 1));
    await eventually(() => assert.equal(server.audited.length, audited + 1));
    const last = server.audited.at(-1);
    assert.deepEqual(
      [last?.path, last?.status, last?.outcome],
      [path, errorTable.client_gone.status, "client_gone"],
    );
    assert.equal(server.service.working, 0);
  }
});

test("a client that waits is not taken for one that went away", async (context) => {
  const server = new TestServer();
  const [id = ""] = await spawn(server, 1);
  const port = await listenForTest(server, context);
  const url = `http://127.0.0.1:${port}/v1/sandboxes/${id}/exec`;
  const headers = { "content-type": "application/json" };
  for (let call = 0; call < 3; call += 1) {
    const answer = await fetch(url, { method: "POST", headers, body: '{"args":["true"]}' });
    await answer.text();
    assert.equal(answer.status, 200);
  }
  assert.equal(server.service.abandoned, 0);
});
