/** Streamed evals as a client sees them, over code that the test plays. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { request as httpRequest, type IncomingMessage } from "node:http";
import { type TestContext, test } from "node:test";
import {
  type EvalEnd,
  type EvalEvent,
  evalEventSchema,
  ForkdError,
  parseSandboxId,
} from "@forkd/api";
import { evalStreams } from "@forkd/host/daemon/routes/eval-stream.ts";
import { guestGates } from "@forkd/host/daemon/routes/guest.ts";
import type { StreamAnswer } from "@forkd/host/daemon/streams.ts";
import type { EvalFeed } from "@forkd/host/fork/service.ts";
import { sampleSandbox } from "../../helpers/fake-service.ts";
import { listenForTest, problemOf, TestServer } from "../../helpers/test-server.ts";

const id = "sb-1-1";
const params = { id };
const end: EvalEnd = {
  ...{ result: "2", result_json: "2", error: null, traceback: null },
  ...{ exit_code: 0, timed_out: false, duration_ms: 1, truncated: false },
};

/** Code that runs until the test ends it. */
class PlayedEval {
  readonly begun = Promise.withResolvers<{
    readonly feed: EvalFeed;
    readonly signal: AbortSignal;
  }>();
  readonly ended = Promise.withResolvers<EvalEnd>();

  constructor(server: TestServer) {
    this.ended.promise.catch(() => undefined);
    server.service.sandboxes.set(id, sampleSandbox(id, "base"));
    Object.assign(server.service, {
      evalStreamed: (
        _id: string,
        _request: object,
        followed: { feed: EvalFeed; signal: AbortSignal },
      ) => {
        this.begun.resolve(followed);
        return this.ended.promise;
      },
    });
  }
}

function eventsOf(text: string): EvalEvent[] {
  const blocks = text.split("\n\n").filter((block) => block.startsWith("event: "));
  return blocks.map((block) => {
    const [name = "", data = ""] = block.split("\n");
    const event = evalEventSchema.parse(JSON.parse(data.slice("data: ".length)));
    assert.equal(name, `event: ${event.type}`);
    return event;
  });
}

test("what is printed is told as it comes, with characters whole, and the result last", async () => {
  const server = new TestServer();
  const played = new PlayedEval(server);
  const answering = server.call("streamEval", { params, body: { code: "x" } });
  const { feed } = await played.begun.promise;
  feed.push("stdout", Buffer.from("a\n"));
  feed.push("stderr", Buffer.from([0xc3]));
  feed.push("stderr", Buffer.from([0xbc]));
  feed.push("stdout", Buffer.from([0xff]));
  played.ended.resolve(end);
  const answer = await answering;
  assert.equal(answer.headers["content-type"], "text/event-stream; charset=utf-8");
  assert.deepEqual(eventsOf(answer.body), [
    { type: "stdout", text: "a\n" },
    { type: "stderr", text: "ü" },
    { type: "stdout", text: "\ufffd" },
    { type: "result", ...end },
  ]);
});

test("what is refused before the code runs is an answer like any other", async () => {
  const server = new TestServer();
  const unknown = await server.call("streamEval", { params, body: { code: "1" } });
  assert.deepEqual([unknown.statusCode, problemOf(unknown).code], [404, "sandbox_not_found"]);
  const bad = await server.call("streamEval", { params, body: { code: 7 } });
  assert.deepEqual([bad.statusCode, problemOf(bad).code], [400, "bad_request"]);
  const played = new PlayedEval(server);
  played.ended.reject(new ForkdError("bad_request", "this guest has no warm interpreter"));
  const none = await server.call("streamEval", { params, body: { code: "1" } });
  assert.deepEqual([none.statusCode, problemOf(none).code], [400, "bad_request"]);
});

test("a failure after output is the last event", async () => {
  const server = new TestServer();
  const played = new PlayedEval(server);
  const answering = server.call("streamEval", { params, body: { code: "x" } });
  const { feed } = await played.begun.promise;
  feed.push("stdout", Buffer.from("so far"));
  played.ended.reject(new ForkdError("sandbox_ended", "it was killed"));
  const [first, last] = eventsOf((await answering).body);
  assert.deepEqual(first, { type: "stdout", text: "so far" });
  assert.ok(last?.type === "error");
  assert.deepEqual([last.code, last.error], ["sandbox_ended", "it was killed"]);
});

/** A request whose answer is read when the test does so. */
async function ask(server: TestServer, context: TestContext): Promise<IncomingMessage> {
  const port = await listenForTest(server, context);
  const request = httpRequest({
    ...{ host: "127.0.0.1", port, method: "POST", path: `/v1/sandboxes/${id}/eval/stream` },
    headers: { "content-type": "application/json" },
  });
  request.end(JSON.stringify({ code: "x" }));
  const [response] = await once(request, "response");
  return response;
}

test("a client that goes away interrupts the code", async (context) => {
  const server = new TestServer();
  const played = new PlayedEval(server);
  const answering = ask(server, context);
  const { feed, signal } = await played.begun.promise;
  feed.push("stdout", Buffer.from("x"));
  const response = await answering;
  const aborted = once(signal, "abort");
  response.destroy();
  await aborted;
  assert.equal(signal.reason.code, "client_gone");
  played.ended.reject(signal.reason);
});

test("output counts as taken when the client has asked for what comes after it", async () => {
  const server = new TestServer();
  const played = new PlayedEval(server);
  const { streamEval } = evalStreams(server.service, guestGates());
  const answering = streamEval({
    params: { id: parseSandboxId(id) },
    query: {},
    body: { code: "x", timeout_secs: 1 },
    headers: {},
    bytes: (async function* () {})(),
    signal: new AbortController().signal,
  });
  const { feed } = await played.begun.promise;
  let taken = 0;
  feed.begin((bytes) => {
    taken += bytes;
  });
  feed.push("stdout", Buffer.from("first"));
  // The route answers with a stream and nothing else.
  const reader = ((await answering) as StreamAnswer).bytes[Symbol.asyncIterator]();
  await reader.next();
  feed.push("stdout", Buffer.from("second"));
  assert.equal(taken, 0);
  await reader.next();
  assert.equal(taken, "first".length);
  played.ended.resolve(end);
  assert.match(String((await reader.next()).value), /^event: result\n/);
  assert.equal(taken, "firstsecond".length);
});
