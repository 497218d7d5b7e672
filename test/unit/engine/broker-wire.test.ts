import assert from "node:assert/strict";
import { test } from "node:test";
import { encodeRequest, parseAnswer } from "@forkd/host/engine/broker-wire.ts";
import fc from "fast-check";

test("words come back from a request as they were", () => {
  const word = fc.string({ unit: "binary" }).filter((text) => !text.includes("\0"));
  fc.assert(
    fc.property(fc.array(word, { maxLength: 50 }), (words) => {
      const bytes = encodeRequest(words);
      assert.equal(bytes.readUInt32LE(0), bytes.length - 4);
      const text = bytes.subarray(4).toString("utf8");
      assert.deepEqual(
        text.split("\0").slice(0, -1),
        words.map((each) => each.toWellFormed()),
      );
    }),
  );
});

test("what the broker would not understand is not sent to it", () => {
  const refused = { code: "engine_failed" };
  assert.throws(() => encodeRequest(["kill", "1\x002"]), refused);
  assert.throws(() => encodeRequest(Array.from({ length: 513 }, () => "x")), refused);
  assert.throws(() => encodeRequest(["x".repeat(256 * 1024)]), refused);
});

test("an answer is one of three, or none", () => {
  assert.deepEqual(parseAnswer("started 3 4711"), { kind: "started", id: "3", pid: 4711 });
  assert.deepEqual(parseAnswer("failed 3 fork: Out of memory"), {
    kind: "failed",
    id: "3",
    why: "fork: Out of memory",
  });
  const ended = (line: string) => parseAnswer(line);
  assert.deepEqual(ended("ended 3 7 -1"), {
    kind: "ended",
    id: "3",
    exit: { exitCode: 7, signal: null },
  });
  assert.deepEqual(ended("ended 3 -1 9"), {
    kind: "ended",
    id: "3",
    exit: { exitCode: null, signal: "SIGKILL" },
  });
  for (const line of ["", "started 3", "started 3 x", "ended 3 7", "ended 3 -2 1", "other 3 4"]) {
    assert.throws(() => parseAnswer(line), { code: "internal" });
  }
});
