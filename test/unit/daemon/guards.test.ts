import assert from "node:assert/strict";
import { test } from "node:test";
import { type RouteName, routes } from "@forkd/api";
import { problemOf, TestServer } from "../../helpers/test-server.ts";

const token = "correct-horse-battery-staple";
const names = Object.keys(routes) as RouteName[];
const params = { id: "sb-1", tag: "base", exec_id: "ex-0123456789abcdef" };

test("every route but health asks for the token", async () => {
  const server = new TestServer({ token });
  for (const name of names.filter((each) => each !== "health")) {
    const missing = await server.call(name, { params, body: undefined });
    assert.equal(problemOf(missing).error, "missing bearer token", name);
    assert.match(String(missing.headers["www-authenticate"]), /^Bearer/);
  }
  assert.equal((await server.call("health")).statusCode, 200);
});

test("only the exact token under the exact scheme opens", async () => {
  const server = new TestServer({ token });
  const ask = async (authorization: string) => {
    const headers = { host: "localhost", authorization };
    return await server.inject({ url: "/version", headers });
  };
  assert.equal((await ask(`Bearer ${token}`)).statusCode, 200);
  assert.equal((await ask(`Bearer   ${token}  `)).statusCode, 200);
  for (const wrong of [`Bearer ${token}x`, `Bearer ${token.slice(1)}`, "Bearer ", "Bearer é"]) {
    assert.match(problemOf(await ask(wrong)).error, /^(invalid|missing) bearer token$/, wrong);
  }
  for (const wrong of [`bearer ${token}`, `Basic ${token}`, token]) {
    assert.equal(problemOf(await ask(wrong)).error, "missing bearer token", wrong);
  }
});

test("the open path is compared as it was sent", async () => {
  const server = new TestServer({ token });
  for (const url of ["/healthz", "/healthz/", "/healthz?x=1"]) {
    assert.equal((await server.inject({ url })).statusCode, 200, url);
  }
  for (const url of ["/Healthz", "/%68ealthz", "/healthz/x", "//healthz", "/healthz;x"]) {
    assert.equal((await server.inject({ url })).statusCode, 401, url);
  }
});

test("what no route answers is told only to those who may ask", async () => {
  const server = new TestServer({ token });
  assert.equal((await server.inject({ url: "/v1/nope" })).statusCode, 401);
  assert.equal((await server.inject({ url: "/%zz" })).statusCode, 401);
});

test("an unknown path, a wrong method and an unreadable path are told apart", async () => {
  const server = new TestServer();
  assert.equal(problemOf(await server.inject({ url: "/v1/nope" })).code, "route_not_found");
  assert.equal(problemOf(await server.inject({ url: "/v1/sandboxes/" })).code, "invalid_id");
  assert.equal(problemOf(await server.inject({ url: "/v1/sandboxes/%zz" })).code, "bad_request");
  // A query that cannot be read must not become one that means something else.
  const query = problemOf(await server.inject({ url: "/v1/sandboxes/sb-1/files?path=/a%ff" }));
  assert.deepEqual(
    [query.code, query.error],
    ["bad_request", "the query is not percent-encoded UTF-8"],
  );
  const wrong = await server.inject({ method: "PUT", url: "/v1/sandboxes" });
  assert.equal(problemOf(wrong).code, "method_not_allowed");
  assert.equal(wrong.headers["allow"], "GET, HEAD, POST");
  const one = await server.inject({ method: "POST", url: "/v1/sandboxes/sb-1" });
  assert.equal(one.headers["allow"], "GET, HEAD, DELETE");
});

test("a loopback server answers to its own names only", async () => {
  const server = new TestServer();
  const ask = async (host: string) => await server.inject({ url: "/version", headers: { host } });
  for (const host of ["localhost", "LOCALHOST:8889", "127.0.0.1", "127.1.2.3:80", "[::1]:8889"]) {
    assert.equal((await ask(host)).statusCode, 200, host);
  }
  for (const host of [
    "evil.example",
    "localhost.evil.example",
    "10.0.0.1",
    "a@localhost",
    "[::2]",
  ]) {
    assert.equal(problemOf(await ask(host)).code, "forbidden", host);
  }
});

test("a server beyond loopback answers to every name", async () => {
  const server = new TestServer({ bind: { host: "0.0.0.0", port: 0 }, token });
  const headers = { host: "forkd.example", authorization: `Bearer ${token}` };
  assert.equal((await server.inject({ url: "/version", headers })).statusCode, 200);
});

test("pages of other sites may not call", async () => {
  const server = new TestServer();
  const ask = async (origin: string) =>
    await server.inject({ url: "/version", headers: { host: "localhost:8889", origin } });
  assert.equal((await ask("http://localhost:8889")).statusCode, 200);
  for (const origin of [
    "null",
    "https://evil.example",
    "http://localhost:3000",
    "localhost:8889",
  ]) {
    assert.equal(problemOf(await ask(origin)).code, "forbidden", origin);
  }
});

test("an unforeseen failure tells the client nothing of the host", async () => {
  const server = new TestServer();
  server.service.listSnapshots = async () => {
    throw new TypeError("cannot read /etc/secret");
  };
  const response = await server.call("listSnapshots");
  const { error, code } = problemOf(response);
  assert.equal(code, "internal");
  assert.ok(!error.includes("secret"));
  assert.ok(error.includes(String(response.headers["x-request-id"])));
});

test("a full disk is told as such", async () => {
  const server = new TestServer();
  server.service.fault = Object.assign(new Error("no space left"), { code: "ENOSPC" });
  const response = await server.call("createSandboxes", { body: { snapshot_tag: "base" } });
  assert.equal(problemOf(response).code, "disk_full");
});

test("malformed bodies are refused in the shape of every failure", async () => {
  const server = new TestServer();
  const send = async (payload: string) =>
    await server.inject({
      method: "POST",
      url: "/v1/sandboxes",
      headers: { host: "localhost", "content-type": "application/json" },
      payload,
    });
  const deep = `{"snapshot_tag":${"[".repeat(500_000)}${"]".repeat(500_000)}}`;
  const wrong = ["{", "nul", '{"snapshot_tag":"a",}', "", deep, '{"__proto__":{"n":1}}'];
  for (const payload of wrong) {
    const response = await send(payload);
    assert.equal(response.statusCode, 400, payload.slice(0, 30));
    assert.equal(problemOf(response).code, "bad_request");
  }
});

test("a request's id is taken over when it is harmless", async () => {
  const server = new TestServer();
  const ask = async (id: string) => {
    const headers = { host: "localhost", "x-request-id": id };
    return (await server.inject({ url: "/version", headers })).headers["x-request-id"];
  };
  assert.equal(await ask("my-request.1"), "my-request.1");
  for (const id of ["", "a b", "x".repeat(65), '"}'])
    assert.match(String(await ask(id)), /^[0-9a-f-]{36}$/);
});

test("every request is audited, without its query", async () => {
  const server = new TestServer({ token });
  await server.inject({ url: "/v1/nope?token=secret", headers: { host: "localhost" } });
  await server.inject({
    url: "/version",
    headers: { host: "localhost", authorization: `Bearer ${token}`, "user-agent": "test/1" },
  });
  const [refused, served] = server.audited;
  assert.equal(server.audited.length, 2);
  assert.deepEqual([refused?.path, refused?.status, refused?.principal], ["/v1/nope", 401, "none"]);
  assert.deepEqual([served?.ua, served?.status, served?.principal], ["test/1", 200, "token"]);
  assert.deepEqual([refused?.outcome, served?.outcome], ["unauthorized", "ok"]);
  assert.match(served?.ts ?? "", /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
  assert.ok(Number.isInteger(served?.latency_us));
  assert.ok(!JSON.stringify(server.audited).includes("secret"));
});

test("the audit tells how long a request took", async () => {
  const server = new TestServer();
  const [child] = (await server.call("createSandboxes", { body: { snapshot_tag: "base" } })).json();
  const waitMs = 30;
  server.service.hold = new Promise((resolve) => setTimeout(resolve, waitMs));
  await server.call("pingSandbox", { params: { id: child.id } });
  const latency = server.audited.at(-1)?.latency_us ?? 0;
  // A timer may fire a millisecond early.
  assert.ok(latency >= (waitMs - 2) * 1000, `${latency} us`);
});
