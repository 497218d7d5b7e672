import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { test } from "node:test";
import { limits } from "@forkd/api";
import { Client } from "@forkd/sdk";
import { eventually } from "../../helpers/eventually.ts";
import { assertRawProblem, rawGet, rawHttp } from "../../helpers/raw-http.ts";
import { listenForTest, TestServer } from "../../helpers/test-server.ts";

const token = "correct-horse-battery-staple";

test("what is not HTTP is refused in the shape of every failure", async (context) => {
  const port = await listenForTest(new TestServer(), context);
  assertRawProblem(await rawHttp(port, "\x16\x03\x01\x02\x00\x01"), 400, "bad_request");
  assertRawProblem(await rawHttp(port, "GET / HTTP/9.9\r\n\r\n"), 400, "bad_request");
  assertRawProblem(await rawHttp(port, "FROB / HTTP/1.1\r\n\r\n"), 400, "bad_request");
  const smuggled =
    "POST /v1/sandboxes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
  assertRawProblem(await rawHttp(port, smuggled), 400, "bad_request");
  const unnamed = "GET /version HTTP/1.1\r\nConnection: close\r\n\r\n";
  assertRawProblem(await rawHttp(port, unnamed), 400, "bad_request");
});

test("headers without end are cut", async (context) => {
  const port = await listenForTest(new TestServer(), context);
  const long = `GET / HTTP/1.1\r\nHost: localhost\r\nX: ${"x".repeat(20_000)}\r\n\r\n`;
  assertRawProblem(await rawHttp(port, long), 431, "headers_too_large");
});

test("a client that trickles its headers or its body is cut off", async (context) => {
  const server = new TestServer({ headersMaxMs: 200, receiveMaxMs: 400 });
  const port = await listenForTest(server, context);
  const started = performance.now();
  assertRawProblem(await rawHttp(port, "GET /version HTTP/1.1\r\nHost: "), 408, "request_timeout");
  const head =
    "POST /v1/sandboxes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n";
  const answer = await rawHttp(port, head, '{"snap');
  if (answer !== "") assertRawProblem(answer, 408, "request_timeout");
  assert.ok(performance.now() - started < 8_000);
  assert.equal(server.service.spawnRequests.length, 0);
});

test("a body over the limit is refused, told or not", async (context) => {
  const port = await listenForTest(new TestServer(), context);
  const size = limits.requestBodyBytesMax + 1;
  const head =
    "POST /v1/sandboxes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
  const told = await rawHttp(port, `${head}Connection: close\r\nContent-Length: ${size}\r\n\r\n`);
  assertRawProblem(told, 413, "payload_too_large");
  const chunk = `${size.toString(16)}\r\n${"x".repeat(size)}\r\n0\r\n\r\n`;
  const untold = await rawHttp(
    port,
    `${head}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n`,
    chunk,
  );
  if (untold !== "") assertRawProblem(untold, 413, "payload_too_large");
});

test("dots in a path lead nowhere", async (context) => {
  const server = new TestServer({ token });
  const port = await listenForTest(server, context);
  const auth = `Authorization: Bearer ${token}`;
  const paths = [
    "/v1/sandboxes/..",
    "/v1/sandboxes/%2e%2e",
    "/v1/sandboxes/..%2f..%2fetc%2fpasswd",
  ];
  for (const path of paths)
    assertRawProblem(await rawHttp(port, rawGet(path, auth)), 400, "invalid_id");
  const up = await rawHttp(port, rawGet("/v1/snapshots/../../etc/passwd", auth));
  assertRawProblem(up, 404, "route_not_found");
  const open = await rawHttp(port, rawGet("/healthz/../version"));
  assertRawProblem(open, 401, "unauthorized");
  const whole = await rawHttp(port, rawGet("http://evil.example/healthz"));
  assertRawProblem(whole, 401, "unauthorized");
});

test("foreign names and foreign pages are refused on a real socket", async (context) => {
  const port = await listenForTest(new TestServer(), context);
  const rebound = "GET /v1/sandboxes HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
  assertRawProblem(await rawHttp(port, rebound), 403, "forbidden");
  const page = await rawHttp(port, rawGet("/version", "Origin: https://evil.example"));
  assertRawProblem(page, 403, "forbidden");
});

test("the SDK and the server agree over a real connection", async (context) => {
  const server = new TestServer({ token });
  const port = await listenForTest(server, context);
  const client = new Client({ url: `http://127.0.0.1:${port}`, token });
  assert.deepEqual(await client.health(), { ok: true });
  assert.match(await client.metrics(), /forkd_build_info/);
  const [child] = await client.createSandboxes({ body: { snapshot_tag: "base", n: 2 } });
  assert.ok(child);
  const params = { id: child.id };
  const exec = await client.execSandbox({ params, body: { args: ["echo", "hé"] } });
  assert.equal(exec.stdout, "echo hé\n");
  assert.equal((await client.pingSandbox({ params })).pong, true);
  assert.equal(await client.deleteSandbox({ params }), undefined);
  await assert.rejects(client.getSandbox({ params }), { code: "sandbox_not_found" });
  const stranger = new Client({
    url: `http://127.0.0.1:${port}`,
    token: "wrong-token-of-16-bytes",
  });
  await assert.rejects(stranger.version(), {
    code: "unauthorized",
    message: "invalid bearer token",
  });
});

test("closing waits for a request in flight and refuses new ones", async (context) => {
  const server = new TestServer();
  const port = await listenForTest(server, context);
  const client = new Client({ url: `http://127.0.0.1:${port}` });
  const [child] = await client.createSandboxes({ body: { snapshot_tag: "base" } });
  const params = { id: child?.id ?? "" };
  const held = Promise.withResolvers<void>();
  context.after(() => held.resolve());
  server.service.hold = held.promise;
  const running = client.evalSandbox({ params, body: { code: "42" } });
  await eventually(() => assert.equal(server.service.working, 1));
  let isClosed = false;
  const closing = server.app.close().then(() => {
    isClosed = true;
  });
  await assert.rejects(client.listSandboxes(), /stopping|no daemon answers/);
  assert.equal(isClosed, false);
  held.resolve();
  assert.equal((await running).result, "42");
  await closing;
});

test("a silent connection does not hold up the close", async (context) => {
  const server = new TestServer();
  const port = await listenForTest(server, context);
  const silent = connect(port, "127.0.0.1");
  context.after(() => silent.destroy());
  await once(silent, "connect");
  const started = performance.now();
  await server.app.close();
  assert.ok(performance.now() - started < 1_000);
});
