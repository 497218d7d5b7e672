import assert from "node:assert/strict";
import { test } from "node:test";
import { type EvalProgress, ForkdError, Sandbox } from "@forkd/sdk";
import fc from "fast-check";
import { fakeClient, notFound } from "../../helpers/fake-fetch.ts";
import { sampleSandbox } from "../../helpers/fake-service.ts";

const end = {
  ...{ result: "2", result_json: "2", error: null, traceback: null },
  ...{ exit_code: 0, timed_out: false, duration_ms: 1 },
};
const result = { type: "result", ...end, truncated: false } as const;

const block = (event: { readonly type: string }): string =>
  `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`;

/** An answer that comes in these pieces. */
function streamed(pieces: readonly Uint8Array[]): Response {
  const body = new ReadableStream<Uint8Array>({
    start: (controller) => {
      for (const piece of pieces) controller.enqueue(piece);
      controller.close();
    },
  });
  return new Response(body, { headers: { "content-type": "text/event-stream" } });
}

function sandboxOf(answer: () => Response) {
  const { client, sent } = fakeClient([answer]);
  return { sandbox: new Sandbox(client, sampleSandbox("sb-1", "base")), sent };
}

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

test("events are the same however the connection cuts them", async () => {
  const texts = fc.array(fc.string({ unit: "grapheme", minLength: 1 }), { maxLength: 8 });
  const cuts = fc.array(fc.integer({ min: 1, max: 40 }), { maxLength: 40 });
  await fc.assert(
    fc.asyncProperty(texts, cuts, async (said, sizes) => {
      const told = said.map((text) => ({ type: "stdout", text }) as const);
      const all = bytes([...told, result].map(block).join(": alive\n\n"));
      const pieces: Uint8Array[] = [];
      let at = 0;
      for (const size of [...sizes, all.length]) {
        pieces.push(all.subarray(at, at + size));
        at += size;
      }
      const { sandbox } = sandboxOf(() => streamed(pieces));
      const seen: EvalProgress[] = [];
      for await (const event of sandbox.streamEval("x")) seen.push(event);
      assert.deepEqual(seen, [...told, result]);
    }),
    { numRuns: 50 },
  );
});

test("with onOutput the output is handed on in order, and the value returned", async () => {
  const events = [{ type: "stdout", text: "a" }, { type: "stderr", text: "b" }, result];
  const { sandbox, sent } = sandboxOf(() => streamed([bytes(events.map(block).join(""))]));
  const heard: string[] = [];
  const onOutput = async (text: string, from: string): Promise<void> => {
    await Promise.resolve();
    heard.push(`${from} ${text}`);
  };
  assert.equal(await sandbox.eval("1+1", { onOutput, timeoutSecs: 5 }), 2);
  assert.deepEqual(heard, ["stdout a", "stderr b"]);
  assert.equal(sent[0]?.url, "http://daemon:1/v1/sandboxes/sb-1/eval/stream");
  assert.deepEqual(sent[0]?.body, { code: "1+1", timeout_secs: 5 });
  assert.equal(new Headers(sent[0]?.init.headers).get("content-type"), "application/json");
});

test("an error event is thrown with its code; so is an answer that was cut off", async () => {
  const error = { type: "error", error: "it was killed", code: "sandbox_ended", hint: "look" };
  const ended = sandboxOf(() => streamed([bytes(block(error))]));
  await assert.rejects(ended.sandbox.streamEval("x").next(), (thrown: unknown) => {
    assert.ok(thrown instanceof ForkdError);
    return thrown.code === "sandbox_ended" && thrown.hint === "look";
  });
  const cut = sandboxOf(() => streamed([bytes(block({ type: "stdout", text: "x" } as never))]));
  await assert.rejects(cut.sandbox.evaluate("x", { onOutput: () => undefined }), {
    code: "daemon_unreachable",
  });
  const refused = sandboxOf(() => notFound("sandbox_not_found"));
  await assert.rejects(refused.sandbox.streamEval("x").next(), { code: "sandbox_not_found" });
});

test("what an onOutput throws ends the call, and the connection", async () => {
  let isCancelled = false;
  const body = new ReadableStream<Uint8Array>({
    pull: (controller) => controller.enqueue(bytes(block({ type: "stdout", text: "x" } as never))),
    cancel: () => {
      isCancelled = true;
    },
  });
  const { sandbox } = sandboxOf(() => new Response(body));
  const call = sandbox.evaluate("x", {
    onOutput: () => {
      throw new Error("enough");
    },
  });
  await assert.rejects(call, { message: "enough" });
  assert.equal(isCancelled, true);
});

test("an event without an end is not held for ever", async () => {
  let sent = 0;
  const page = bytes("x".repeat(1024 * 1024));
  const body = new ReadableStream<Uint8Array>({
    pull: (controller) => {
      sent += page.length;
      controller.enqueue(page);
    },
  });
  const { sandbox } = sandboxOf(() => new Response(body));
  await assert.rejects(sandbox.streamEval("x").next(), { code: "internal" });
  assert.ok(sent < 160 * 1024 * 1024, "the bound is that of the longest result");
});
