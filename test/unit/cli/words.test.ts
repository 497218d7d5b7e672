import assert from "node:assert/strict";
import { test } from "node:test";
import { splitWords } from "@forkd/host/cli/words.ts";

const cases: readonly [string, readonly string[]][] = [
  ["", []],
  ["  ", []],
  ["pip install  numpy", ["pip", "install", "numpy"]],
  ["sh -c 'echo a b'", ["sh", "-c", "echo a b"]],
  [`say "it's" ''`, ["say", "it's", ""]],
  ["a'b'\"c\"d", ["abcd"]],
  ["back\\ slash $HOME", ["back\\", "slash", "$HOME"]],
];

for (const [text, words] of cases) {
  test(`splits ${JSON.stringify(text)}`, () => assert.deepEqual(splitWords(text), words));
}

test("a quote that is never closed is refused", () => {
  assert.throws(() => splitWords("echo 'a b"), { code: "bad_request" });
});
