import assert from "node:assert/strict";
import { test } from "node:test";
import { DetachKeys, detachKeysDefault, parseDetachKeys } from "@forkd/host/cli/detach-keys.ts";
import fc from "fast-check";

const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString("latin1");

test("keys are named as people name them", () => {
  assert.deepEqual([...parseDetachKeys(detachKeysDefault)], [0x10, 0x11]);
  assert.deepEqual([...parseDetachKeys("ctrl-],x,~")], [0x1d, 0x78, 0x7e]);
  assert.equal(parseDetachKeys("").length, 0);
  for (const bad of ["ctrl-", "ctrl-1", "ab", "a,", "ü", "a,b,c,d,e,f,g,h,i"]) {
    assert.throws(() => parseDetachKeys(bad), { code: "bad_request" }, bad);
  }
});

test("what is typed before the keys goes through, what follows is dropped", () => {
  const keys = new DetachKeys(Buffer.from("ab"));
  assert.deepEqual(keys.take(Buffer.from("xa")), { bytes: Uint8Array.of(0x78), isDetach: false });
  const next = keys.take(Buffer.from("cab!"));
  assert.deepEqual([text(next.bytes), next.isDetach], ["ac", true]);
});

test("the keys are found wherever they come, in whatever pieces", () => {
  const typed = fc.string({ unit: fc.constantFrom("p", "q", "x"), maxLength: 40 });
  fc.assert(
    fc.property(typed, fc.integer({ min: 1, max: 5 }), (words, size) => {
      const keys = new DetachKeys(Buffer.from("pq"));
      let passed = "";
      let found = false;
      for (let at = 0; at < words.length && !found; at += size) {
        const { bytes, isDetach } = keys.take(Buffer.from(words.slice(at, at + size)));
        passed += text(bytes);
        found = isDetach;
      }
      const where = words.indexOf("pq");
      assert.equal(found, where >= 0);
      const held = words.endsWith("p") ? 1 : 0;
      assert.equal(passed, found ? words.slice(0, where) : words.slice(0, words.length - held));
    }),
  );
});
