import assert from "node:assert/strict";
import { test } from "node:test";
import { ForkdError } from "@forkd/api";
import { BoundedText, ByteBudget } from "@forkd/host/agent/bounded-text.ts";
import { evaluate } from "@forkd/host/agent/evals.ts";
import { encodeFrame, frameType } from "@forkd/host/agent/frame.ts";
import { exec, ping } from "@forkd/host/agent/guest.ts";
import { AgentSession, firstAttachToken } from "@forkd/host/agent/session.ts";
import fc from "fast-check";
import { ScriptedAgent } from "../../helpers/scripted-agent.ts";

const json = fc.oneof(
  fc.json(),
  fc.constantFrom("", "{", "null", '{"event":"result","part":"x"}', '{"code":"busy","message":""}'),
);

/** Frames that mostly have a valid header, for streams that mostly are open. */
const frame = fc
  .record({
    type: fc.oneof(fc.constantFrom(...Object.values(frameType)), fc.integer({ min: 1, max: 255 })),
    stream: fc.oneof(fc.integer({ min: 0, max: 4 }), fc.nat()),
    payload: fc.oneof(
      json.map((text) => Buffer.from(text)),
      fc.uint8Array({ maxLength: 64 }),
    ),
  })
  .map(({ type, stream, payload }) => encodeFrame(type, stream, payload));

const bytes = fc
  .array(fc.oneof({ weight: 4, arbitrary: frame }, fc.uint8Array({ maxLength: 40 })), {
    maxLength: 30,
  })
  .map((parts) => Buffer.concat(parts));

test("whatever a guest sends, every call ends and only with failures that have a code", async () => {
  const cuts = fc.array(fc.integer({ min: 1, max: 500 }), { maxLength: 40 });
  await fc.assert(
    fc.asyncProperty(bytes, cuts, async (sent, sizes) => {
      const agent: ScriptedAgent = new ScriptedAgent((op) => {
        if (op["op"] === "hello") agent.answerHello(op);
      });
      const session = AgentSession.attach(agent.channel, {
        token: firstAttachToken,
        helloTimeoutMs: 1_000,
      });
      await session.hello;
      const calls = [
        exec(session, { args: ["x"], timeout_secs: 60, env: {}, stdin: "input" }),
        evaluate(session, { code: "1", timeout_secs: 60 }),
        ping(session, 60_000),
      ];
      const settled = Promise.allSettled(calls);
      let at = 0;
      for (const size of sizes) {
        agent.raw(sent.subarray(at, at + size));
        at += size;
        await new Promise(setImmediate);
      }
      agent.raw(sent.subarray(at));
      await new Promise(setImmediate);
      session.close();
      assert.equal((await session.ended).code, "agent_unavailable");
      for (const result of await settled) {
        if (result.status === "rejected") assert.ok(result.reason instanceof ForkdError);
      }
    }),
    { numRuns: 300 },
  );
});

test("a guest that is owed too much cannot be asked more", async () => {
  const agent: ScriptedAgent = new ScriptedAgent((op) => {
    if (op["op"] === "hello") agent.answerHello(op);
  });
  const session = AgentSession.attach(agent.channel, {
    token: firstAttachToken,
    helloTimeoutMs: 1_000,
  });
  await session.hello;
  const waiting = Array.from({ length: 64 }, () => ping(session, 60_000));
  for (const each of waiting) each.catch(() => undefined);
  await assert.rejects(ping(session, 60_000), { code: "too_many_requests" });
  assert.equal(session.failure, undefined);
  session.close();
});

test("outputs share a bound, and give back what they took", () => {
  const all = new ByteBudget(10_000);
  const mine = new ByteBudget(8_000, all);
  {
    using first = new BoundedText(6_000, mine);
    using second = new BoundedText(6_000, mine);
    first.append(Buffer.alloc(5_000, "a"));
    second.append(Buffer.alloc(5_000, "b"));
    assert.deepEqual([first.toString().length, first.truncated], [5_000, false]);
    assert.equal(second.truncated, true);
    assert.ok(second.toString().length <= 8_000 - 5_000);
    assert.ok(all.left <= 10_000 - 8_000 + 1_000);
  }
  assert.deepEqual([mine.left, all.left], [8_000, 10_000]);
});

test("text that comes byte by byte is one text, cut at its bound", () => {
  const text = new BoundedText(1_000, new ByteBudget(100_000));
  for (let i = 0; i < 1_500; i += 1) text.append(Buffer.from(String(i % 10)));
  assert.equal(text.toString(), "0123456789".repeat(100));
  assert.equal(text.truncated, true);
});
