import assert from "node:assert/strict";
import { test } from "node:test";
import { type EvalChannel, EvalFeed } from "@forkd/host/agent/eval-feed.ts";
import { evaluateStreamed } from "@forkd/host/agent/evals.ts";
import { frameType } from "@forkd/host/agent/frame.ts";
import { AgentSession, firstAttachToken } from "@forkd/host/agent/session.ts";
import { initialCreditBytes } from "@forkd/host/agent/stream.ts";
import fc from "fast-check";
import { ScriptedAgent } from "../../helpers/scripted-agent.ts";

const channels = ["stdout", "stderr"] as const;
type Texts = Record<EvalChannel, string>;

/** Takes all that is there; returns how many bytes that were. */
function drain(feed: EvalFeed, into: Texts): number {
  let bytes = 0;
  for (let piece = feed.take(); piece !== undefined; piece = feed.take()) {
    into[piece.from] += piece.text;
    bytes += piece.bytes;
    feed.took(piece.bytes);
  }
  return bytes;
}

test("however output is cut and whenever it is taken, each text is whole", () => {
  const chunk = fc.record({
    from: fc.constantFrom(...channels),
    bytes: fc.oneof(
      fc.uint8Array({ minLength: 1, maxLength: 9 }),
      fc.string({ unit: "grapheme", minLength: 1 }).map((text) => new TextEncoder().encode(text)),
    ),
    takes: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(chunk, { maxLength: 300 }), (chunks) => {
      const feed = new EvalFeed();
      const seen: Texts = { stdout: "", stderr: "" };
      let credited = 0;
      feed.begin((bytes) => {
        credited += bytes;
      });
      for (const { from, bytes, takes } of chunks) {
        feed.push(from, bytes);
        if (takes) drain(feed, seen);
      }
      feed.end();
      drain(feed, seen);
      for (const from of channels) {
        const all = Buffer.concat(
          chunks.filter((one) => one.from === from).map((one) => one.bytes),
        );
        assert.equal(seen[from] + feed.rest(from), all.toString("utf8"));
      }
      assert.equal(feed.truncated, false);
      assert.equal(
        credited,
        chunks.reduce((sum, { bytes }) => sum + bytes.length, 0),
      );
    }),
  );
});

test("a window of single bytes, each of the other output, is held in few blocks and kept", () => {
  const feed = new EvalFeed();
  const byte = Buffer.from("x");
  for (let n = 0; n < initialCreditBytes; n += 1)
    feed.push(n % 2 === 0 ? "stdout" : "stderr", byte);
  const seen: Texts = { stdout: "", stderr: "" };
  let pieces = 0;
  for (let piece = feed.take(); piece !== undefined; piece = feed.take()) {
    seen[piece.from] += piece.text;
    pieces += 1;
  }
  assert.deepEqual([seen.stdout.length, seen.stderr.length], Array(2).fill(initialCreditBytes / 2));
  assert.ok(pieces <= 64, `${pieces} pieces`);
});

test("once the code's time is over nobody waits for the reader; the rest is cut and told", () => {
  const feed = new EvalFeed();
  let credited = 0;
  feed.begin((bytes) => {
    credited += bytes;
  });
  feed.push("stdout", Buffer.alloc(initialCreditBytes, "a"));
  assert.equal(credited, 0);
  feed.hurry();
  assert.equal(credited, initialCreditBytes);
  feed.push("stdout", Buffer.from("b"));
  assert.deepEqual([credited, feed.truncated], [initialCreditBytes + 1, true]);
  const seen: Texts = { stdout: "", stderr: "" };
  drain(feed, seen);
  assert.equal(seen.stdout, "a".repeat(initialCreditBytes));
  feed.push("stdout", Buffer.from("c"));
  drain(feed, seen);
  assert.ok(seen.stdout.endsWith("ac"), "there is room again");
  assert.equal(credited, initialCreditBytes + 2);
});

test("code that prints waits for its reader, and goes on when it reads", async () => {
  const reply = { ok: true, result: "1", result_json: "1", error: null, traceback: null };
  const page = Buffer.alloc(initialCreditBytes / 4, "y");
  let credit = initialCreditBytes;
  const agent: ScriptedAgent = new ScriptedAgent((op, stream) => {
    if (op["op"] === "hello") return agent.answerHello(op);
    for (; credit >= page.length; credit -= page.length) agent.send("stdout", stream, page);
  });
  const session = AgentSession.attach(agent.channel, {
    token: firstAttachToken,
    helloTimeoutMs: 60_000,
  });
  await session.hello;
  const feed = new EvalFeed();
  const request = { code: "1", timeout_secs: 60 };
  const ended = evaluateStreamed(session, request, { feed, signal: undefined });
  const seen: Texts = { stdout: "", stderr: "" };
  const windows = () => agent.seen.filter(({ type }) => type === frameType.window);
  let left = initialCreditBytes;
  while (left > 0) {
    assert.equal(windows().length === 0, left === initialCreditBytes);
    await feed.wait(10_000);
    left -= drain(feed, seen);
  }
  assert.ok(windows().length > 0, "credit came back once the output was taken");
  const stream = windows()[0]?.stream ?? 0;
  agent.send("reply", stream, { ...reply, timed_out: false, duration_ms: 1 });
  const { result, exit_code, truncated } = await ended;
  assert.deepEqual([result, exit_code, truncated, feed.isOver], ["1", 0, false, true]);
  session.close();
});
