import assert from "node:assert/strict";
import { test } from "node:test";
import {
  empty,
  fakeClient,
  json,
  notFound,
  refuse,
  busy as refused,
} from "../../helpers/fake-fetch.ts";

const listed = () => json(200, []);
const busy = () => refused(0);

test("a GET is sent again after a failure that may pass, at most twice", async () => {
  const passing = fakeClient([busy, busy, listed]);
  assert.deepEqual(await passing.client.listSnapshots(), []);
  assert.equal(passing.sent.length, 3);
  const lasting = fakeClient([busy]);
  await assert.rejects(lasting.client.listSnapshots(), { code: "busy" });
  assert.equal(lasting.sent.length, 3);
});

test("a POST is never sent again: nobody knows what it has done", async () => {
  for (const answer of [busy, refuse]) {
    const { client, sent } = fakeClient([answer, () => json(201, [])]);
    await assert.rejects(client.createSandboxes({ body: { snapshot_tag: "a" } }));
    await assert.rejects(fakeClient([answer]).client.pingSandbox({ params: { id: "x" } }));
    assert.equal(sent.length, 1);
  }
});

test("a failure that will not pass is told at once", async () => {
  const { client, sent } = fakeClient([() => notFound("sandbox_not_found")]);
  await assert.rejects(client.getSandbox({ params: { id: "x" } }), { code: "sandbox_not_found" });
  assert.equal(sent.length, 1);
});

test("the caller and the client say how often", async () => {
  const { client, sent } = fakeClient([busy], { retriesMax: 1 });
  await assert.rejects(client.listSnapshots(), { code: "busy" });
  await assert.rejects(client.listSnapshots({ retriesMax: 0 }), { code: "busy" });
  assert.equal(sent.length, 3);
});

test("Retry-After is waited for, and not when it is too long", async () => {
  const { client, sent } = fakeClient([() => refused(1), listed]);
  const startedAt = performance.now();
  await client.listSnapshots();
  assert.ok(performance.now() - startedAt >= 1000, "it came back before the second was over");
  assert.equal(sent.length, 2);
  const long = fakeClient([() => refused(3600), listed]);
  await assert.rejects(long.client.listSnapshots(), { code: "busy", retryAfterSecs: 3600 });
  assert.equal(long.sent.length, 1);
});

test("a wait that would pass the deadline is not begun: the failure is told", async () => {
  const { client, sent } = fakeClient([() => refused(5)]);
  await assert.rejects(client.listSnapshots({ timeoutMs: 1000 }), { code: "busy" });
  assert.equal(sent.length, 1);
});

test("an abort ends the wait before a repetition", async () => {
  const { client, sent } = fakeClient([() => refused(5)]);
  const stop = new AbortController();
  const call = client.listSnapshots({ signal: stop.signal });
  setImmediate(() => stop.abort(new Error("enough")));
  await assert.rejects(call, { message: "enough" });
  assert.equal(sent.length, 1);
});

test("a connection that failed is made again", async () => {
  const { client, sent } = fakeClient([refuse, listed]);
  assert.deepEqual(await client.listSandboxes(), []);
  assert.equal(sent.length, 2);
});

test("an answer that breaks off is no answer", async () => {
  const broken = (): Response =>
    new Response(
      new ReadableStream({
        start: (stream) => {
          stream.enqueue(new TextEncoder().encode("[{"));
          stream.error(new Error("reset"));
        },
      }),
    );
  const { client } = fakeClient([broken, listed]);
  assert.deepEqual(await client.listSandboxes(), []);
});

test("a deletion whose answer was lost is done when the repetition finds nothing", async () => {
  const call = { params: { tag: "a" } };
  const lost = fakeClient([refuse, () => notFound("snapshot_not_found")]);
  await lost.client.deleteSnapshot(call);
  assert.equal(lost.sent.length, 2);
  const unknown = fakeClient([() => notFound("snapshot_not_found"), empty]);
  await assert.rejects(unknown.client.deleteSnapshot(call), { code: "snapshot_not_found" });
  const late = fakeClient([busy, () => notFound("snapshot_not_found")]);
  await assert.rejects(late.client.deleteSnapshot(call), { code: "snapshot_not_found" });
});
