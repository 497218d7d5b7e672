/** Clients that send slowly, read nothing, or come in crowds; the server has short bounds. */
import assert from "node:assert/strict";
import { once } from "node:events";
import type { Socket } from "node:net";
import { type TestContext, test } from "node:test";
import { limits, type Route, routes } from "@forkd/api";
import { eventually } from "../../helpers/eventually.ts";
import { rawConnection, rawGet, rawHead, rawHttp, rawStatuses } from "../../helpers/raw-http.ts";
import { listenForTest, TestServer } from "../../helpers/test-server.ts";

const health = rawGet("/healthz");
const token = "correct-horse-battery-staple";
const bearer = `Authorization: Bearer ${token}`;
const crowd = 200;

interface Crowd {
  readonly port: number;
  readonly count: number;
  /** What each of them sends. */
  readonly text?: string;
}

/** Many connections, closed with the test. */
async function connectMany(context: TestContext, crowd: Crowd): Promise<Socket[]> {
  const { port, count, text = "" } = crowd;
  const sockets = await Promise.all(Array.from({ length: count }, () => rawConnection(port, text)));
  context.after(() => {
    for (const socket of sockets) socket.destroy();
  });
  return sockets;
}

const isServed = async (port: number): Promise<void> =>
  assert.deepEqual(rawStatuses(await rawHttp(port, health)), [200]);

const closed = (sockets: readonly Socket[]): Promise<unknown> =>
  Promise.all(
    sockets.map((socket) => {
      socket.resume();
      return socket.closed || once(socket, "close");
    }),
  );

const body = `{"args":["${"x".repeat(64)}"]}`;
const slow: Readonly<Record<string, readonly [head: string, drop: string]>> = {
  "headers that never end": ["GET /healthz HTTP/1.1\r\nHost: localhost\r\n", "A: b\r\n"],
  "a body that never ends": [
    rawHead("POST /v1/sandboxes/sb-1/exec HTTP/1.1", "Host: localhost", "Content-Length: 1000000"),
    " ",
  ],
  "chunks that never end": [
    rawHead(
      "POST /v1/sandboxes/sb-1/exec HTTP/1.1",
      "Host: localhost",
      "Transfer-Encoding: chunked",
    ),
    "1\r\n \r\n",
  ],
};

for (const [name, [head, drop]] of Object.entries(slow)) {
  test(`${name}: ${crowd} such clients are cut off, and others served meanwhile`, async (t) => {
    const server = new TestServer({ headersMaxMs: 1_000, receiveMaxMs: 1_500 });
    const port = await listenForTest(server, t);
    const sockets = await connectMany(t, { port, count: crowd, text: head });
    // A byte now and then keeps a silence timer from firing, but not the deadline.
    const trickle = setInterval(() => {
      for (const socket of sockets) if (socket.writable) socket.write(drop);
    }, 100);
    t.after(() => clearInterval(trickle));
    await isServed(port);
    await closed(sockets);
    await isServed(port);
  });
}

test("connections above the bound are refused, and room is made when others go", async (t) => {
  const port = await listenForTest(new TestServer(), t);
  const sockets = await connectMany(t, { port, count: limits.connectionsMax });
  assert.equal(await rawHttp(port, health), "");
  const [first, ...others] = sockets;
  first?.write(health);
  const [answer] = await once(first ?? assert.fail(), "data");
  assert.match(String(answer), /^HTTP\/1\.1 200 /, "those that are in are served");
  for (const socket of others.slice(0, 8)) socket.destroy();
  await eventually(() => isServed(port));
});

test("who leaves an answer unread is cut off; who waits for one is not", async (context) => {
  const server = new TestServer({ answerStallMaxMs: 300 });
  const port = await listenForTest(server, context);
  const held = Promise.withResolvers<void>();
  context.after(() => held.resolve());
  const [id = ""] = (await server.call("createSandboxes", { body: { snapshot_tag: "base" } }))
    .json()
    .map((each: { id: string }) => each.id);
  const exec = (words: string): string =>
    rawHead(
      ...[`POST /v1/sandboxes/${id}/exec HTTP/1.1`, "Host: localhost"],
      ...["Content-Type: application/json", `Content-Length: ${words.length}`],
    ) + words;
  const { exec: run } = server.service;
  // More than the kernel keeps for both sides of a connection.
  const output = "x".repeat(64 * 1024 * 1024);
  server.service.exec = async () => ({
    ...(await run.call(server.service, id, { args: [] })),
    stdout: output,
  });
  const deaf = await rawConnection(port, exec(body));
  deaf.pause();
  const inFlight = () => server.audited.filter(({ path }) => path.endsWith("/exec"));
  await eventually(() => assert.equal(inFlight()[0]?.status, 499));
  server.service.exec = run;
  server.service.hold = held.promise;
  const patient = rawHttp(port, exec(body).replace("Host:", "Connection: close\r\nHost:"));
  await eventually(() => assert.equal(server.service.working, 1));
  // Several times the bound, with nothing to send and nothing to read.
  await new Promise((resolve) => setTimeout(resolve, 1_200));
  held.resolve();
  assert.deepEqual(rawStatuses(await patient), [200]);
});

test("requests sent in one go are answered in order, each guarded by itself", async (context) => {
  const port = await listenForTest(new TestServer({ token }), context);
  const open = rawHead("GET /healthz HTTP/1.1", "Host: localhost");
  const shut = rawHead("GET /version HTTP/1.1", "Host: localhost");
  const known = rawGet("/version", bearer);
  // The last one comes behind a request that asked to close.
  const answer = await rawHttp(port, open + shut + open + known + open);
  assert.deepEqual(rawStatuses(answer), [200, 401, 200, 200]);
  const foreign = rawHead("GET /healthz HTTP/1.1", "Host: evil.example");
  assert.deepEqual(rawStatuses(await rawHttp(port, open + foreign + health)), [200, 403, 200]);
});

test("what is no HTTP is not answered before what came before it", async (context) => {
  const server = new TestServer();
  const port = await listenForTest(server, context);
  const held = Promise.withResolvers<void>();
  context.after(() => held.resolve());
  server.service.hold = held.promise;
  const spawn = '{"snapshot_tag":"base"}';
  const head = ["POST /v1/sandboxes HTTP/1.1", "Host: localhost", "Content-Type: application/json"];
  const one = rawHead(...head, `Content-Length: ${spawn.length}`) + spawn;
  assert.equal(await rawHttp(port, `${one}FROB / HTTP/1.1\r\n\r\n`), "");
});

test("too many requests in one go end their connection, and hold nothing", async (context) => {
  const server = new TestServer();
  const port = await listenForTest(server, context);
  const held = Promise.withResolvers<void>();
  context.after(() => held.resolve());
  server.service.hold = held.promise;
  const length = `Content-Length: ${limits.requestBodyBytesMax}`;
  const spawn = '{"snapshot_tag":"base"}';
  const head = ["POST /v1/sandboxes HTTP/1.1", "Host: localhost", "Content-Type: application/json"];
  const one = rawHead(...head, `Content-Length: ${spawn.length}`) + spawn;
  assert.equal(await rawHttp(port, one.repeat(limits.pipelinedRequestsMax + 1)), "");
  await eventually(() => assert.equal(server.service.working, 0));
  const count = limits.requestBodiesBytesMax / limits.requestBodyBytesMax;
  const text = rawHead(...head, length);
  for (const socket of await connectMany(context, { port, count, text })) socket.destroy();
  held.resolve();
  await eventually(async () => {
    const answer = await server.call("createSandboxes", { body: { snapshot_tag: "base" } });
    assert.equal(answer.statusCode, 201);
  });
});

const socketLines = ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="];
const upgrade = (path: string, ...lines: readonly string[]): string =>
  rawHead(`GET ${path} HTTP/1.1`, "Host: localhost", "Connection: Upgrade", ...lines);
const websocket = (path: string, ...lines: readonly string[]): string =>
  upgrade(path, "Upgrade: websocket", ...socketLines, ...lines);
const streams = Object.values<Route>(routes)
  .filter(({ socket }) => socket !== undefined)
  .map(({ path }) => path.replaceAll(/\{\w+\}/g, "sb-1"));

test("an upgrade is no way around a guard", async (context) => {
  const server = new TestServer({ token });
  const port = await listenForTest(server, context);
  assert.ok(streams.length > 0);
  for (const path of ["/version", "/v1/sandboxes", "/nothing", ...streams]) {
    const cases: readonly [string, number][] = [
      [websocket(path, "X-Note: x"), 401],
      [websocket(path, "Authorization: Bearer other"), 401],
      [websocket(path, bearer, bearer), 400],
      [websocket(path, bearer, "Origin: https://evil.example"), 403],
      [websocket(path, bearer).replace("localhost", "evil.example"), 403],
    ];
    for (const [request, status] of cases) {
      const answer = await rawHttp(port, request.replace("Upgrade\r", "Upgrade, close\r"));
      assert.deepEqual(rawStatuses(answer), [status], `${request}\n${answer}`);
    }
  }
  const clear = upgrade("/version", "Upgrade: h2c", bearer).replace(
    "Upgrade\r",
    "Upgrade, close\r",
  );
  assert.deepEqual(rawStatuses(await rawHttp(port, clear)), [200]);
});

test("an upgrade among other requests of a connection harms nobody", async (context) => {
  const server = new TestServer({ token });
  const port = await listenForTest(server, context);
  const open = rawHead("GET /healthz HTTP/1.1", "Host: localhost");
  for (const path of ["/version", ...streams]) {
    const one = websocket(path, bearer);
    for (const text of [open + one, one + one, one + open, open + one + open]) {
      const socket = await rawConnection(port, text);
      await once(socket, "data");
      socket.destroy();
      await isServed(port);
    }
  }
});
