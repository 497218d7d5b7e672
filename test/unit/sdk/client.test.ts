import assert from "node:assert/strict";
import { test } from "node:test";
import { callNames, ForkdError } from "@forkd/api";
import { Client, ControllerError } from "@forkd/sdk";
import { fakeClient, json } from "../../helpers/fake-fetch.ts";

const clientOf = (answer: () => Response | Promise<Response>) => fakeClient([answer]);

test("there is a method for every route that is one call", () => {
  const { client } = clientOf(() => json(200, {}));
  for (const name of callNames) {
    assert.equal(typeof client[name], "function", name);
  }
});

test("a call sends what the route table says", async () => {
  const result = { id: "x", stdout: "a", stderr: "", exit_code: 0, signal: null };
  const full = { ...result, timed_out: false, truncated: false, error: null, duration_ms: 1 };
  const { client, sent } = clientOf(() => json(200, full));
  const answer = await client.execSandbox({ params: { id: "a b/c" }, body: { args: ["ls"] } });
  assert.equal(answer.stdout, "a");
  assert.equal(sent[0]?.url, "http://daemon:1/v1/sandboxes/a%20b%2Fc/exec");
  assert.equal(sent[0]?.init.method, "POST");
  assert.equal(sent[0]?.init.body, '{"args":["ls"]}');
  assert.equal(sent[0]?.init.redirect, "error");
  assert.deepEqual(sent[0]?.init.headers, {
    accept: "application/json",
    authorization: "Bearer t",
    "content-type": "application/json",
  });
});

test("a call by name is the same, and a ping sends no body", async () => {
  const { client, sent } = clientOf(() => json(200, []));
  assert.deepEqual(await client.call("listSandboxes"), []);
  await assert.rejects(client.call("pingSandbox", { params: { id: "x" } }), { code: "internal" });
  assert.equal(sent[1]?.init.body, undefined);
});

test("an empty answer is undefined", async () => {
  const { client } = clientOf(() => new Response(null, { status: 204 }));
  assert.equal(await client.deleteSandbox({ params: { id: "x" } }), undefined);
});

test("the daemon's failures come through with code and hint, and a POST is sent once", async () => {
  const problem = { error: "sandbox 'x' not found", code: "sandbox_not_found", hint: "look" };
  const { client, sent } = clientOf(() => json(404, problem));
  await assert.rejects(client.getSandbox({ params: { id: "x" } }), (error: unknown) => {
    assert.ok(error instanceof ForkdError);
    assert.deepEqual(error.toProblem(), problem);
    assert.ok(error instanceof ControllerError);
    const { status, body, url } = error;
    assert.deepEqual({ status, body, url }, { status: 404, body: problem, url: sent[0]?.url });
    return true;
  });
  const { client: busy, sent: posts } = clientOf(() => json(503, { ...problem, code: "busy" }));
  await assert.rejects(busy.createSandboxes({ body: { snapshot_tag: "a" } }), { code: "busy" });
  assert.deepEqual([sent.length, posts.length], [1, 1]);
});

test("an answer that is not the daemon's is told as such", async () => {
  const page = clientOf(() => new Response("<html>", { status: 502 }));
  await assert.rejects(page.client.version(), { code: "internal", message: "HTTP 502: <html>" });
  const other = clientOf(() => json(200, { hello: 1 }));
  await assert.rejects(other.client.version(), /schema/);
  const text = clientOf(() => new Response("nonsense"));
  await assert.rejects(text.client.version(), { code: "internal" });
});

test("nobody answering, a deadline and an abort are told apart", async () => {
  const down = clientOf(() => {
    throw new TypeError("fetch failed", { cause: new Error("connect ECONNREFUSED 1.2.3.4:5") });
  });
  await assert.rejects(down.client.version(), {
    code: "daemon_unreachable",
    message: /ECONNREFUSED/,
  });

  const never = async (_url: unknown, init: RequestInit = {}): Promise<Response> =>
    await new Promise((_, reject) => {
      init.signal?.addEventListener("abort", () => reject(init.signal?.reason));
    });
  const slow = new Client({ url: "http://daemon:1", fetch: never });
  await assert.rejects(slow.version({ timeoutMs: 10 }), { code: "deadline_exceeded" });
  const stop = new AbortController();
  const reason = new Error("stop");
  const call = slow.version({ signal: stop.signal });
  stop.abort(reason);
  await assert.rejects(call, (error: unknown) => error === reason);
});

test("an address that is none is refused at once", () => {
  for (const url of ["daemon:1", "ftp://x", "/v1"]) {
    assert.throws(() => new Client({ url }), { code: "bad_request" }, url);
  }
});
