import assert from "node:assert/strict";
import { test } from "node:test";
import { limits } from "@forkd/api";
import { checkJsonShape } from "@forkd/host/daemon/json-shape.ts";
import * as fc from "fast-check";

const nested = (depth: number): string => "[".repeat(depth) + "]".repeat(depth);
const list = (values: number): string => `[${Array.from({ length: values }, () => 1).join()}]`;

function refuses(text: string, what: RegExp): void {
  assert.throws(() => checkJsonShape(text), { code: "bad_request", message: what });
}

test("JSON may be as deep as the bound, and no deeper", () => {
  checkJsonShape(nested(limits.jsonDepthMax));
  refuses(nested(limits.jsonDepthMax + 1), /deep$/);
  refuses('{"a":'.repeat(limits.jsonDepthMax + 1), /deep$/);
});

test("JSON may have as many values as the bound, and no more", () => {
  checkJsonShape(list(limits.jsonValuesMax));
  refuses(list(limits.jsonValuesMax + 1), /values$/);
});

test("what stands in a text does not count", () => {
  const text = `${"[".repeat(1_000)}${",".repeat(limits.jsonValuesMax)}\\"`;
  checkJsonShape(JSON.stringify({ text, [text]: text }));
  refuses(`{"a":"\\"","b":${nested(limits.jsonDepthMax)}}`, /deep$/);
  refuses(`{"a":"\\\\","b":${nested(limits.jsonDepthMax)}}`, /deep$/);
});

/** By the parser itself. */
function depthOf(value: unknown): number {
  if (typeof value !== "object" || value === null) return 0;
  return 1 + Math.max(0, ...Object.values(value).map(depthOf));
}

test("the bound is one on what the parser makes of the text", async () => {
  await fc.assert(
    fc.property(fc.jsonValue(), fc.nat({ max: 2 * limits.jsonDepthMax }), (value, levels) => {
      const text = "[".repeat(levels) + JSON.stringify(value) + "]".repeat(levels);
      if (depthOf(JSON.parse(text)) > limits.jsonDepthMax) refuses(text, /deep$/);
      else checkJsonShape(text);
    }),
  );
});

test("malformed text is left to the parser", () => {
  for (const text of ["", "]]]]", '"', '"\\', "{,}", "\u{1f600}"]) checkJsonShape(text);
});
