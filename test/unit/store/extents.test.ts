import assert from "node:assert/strict";
import { test } from "node:test";
import { ForkdError } from "@forkd/api";
import {
  coalesce,
  decodeExtents,
  type Extent,
  encodeExtents,
  fillGaps,
  overlay,
  pageBytes,
  type Segment,
} from "@forkd/host/store/extents.ts";
import fc from "fast-check";

const pages = 64;
const memoryBytes = pages * pageBytes;
const where = { memoryBytes, path: "/t" };

/** Which layer each page comes from; null where none has it. */
type Model = readonly (number | null)[];

function segmentsOf(model: Model): Segment[] {
  const runs: { offset: number; length: number; layer: number }[] = [];
  model.forEach((layer, i) => {
    const last = runs.at(-1);
    const offset = i * pageBytes;
    if (layer === null) return;
    if (last?.layer === layer && last.offset + last.length === offset) last.length += pageBytes;
    else runs.push({ offset, length: pageBytes, layer });
  });
  return runs;
}

function modelOf(segments: readonly Segment[]): Model {
  const model: (number | null)[] = Array.from({ length: pages }, () => null);
  for (const { offset, length, layer } of segments) {
    for (let i = offset / pageBytes; i < (offset + length) / pageBytes; i += 1) {
      assert.equal(model[i], null, "two segments have one page");
      model[i] = layer;
    }
  }
  return model;
}

const layerOf = (layer: number): fc.Arbitrary<Model> =>
  fc.array(fc.constantFrom(null, layer), { minLength: pages, maxLength: pages });

const isSorted = (extents: readonly Extent[]): boolean =>
  extents.every(({ offset }, i) => {
    const before = extents[i - 1];
    return before === undefined || before.offset + before.length <= offset;
  });

test("of two layers the upper counts wherever it has pages", () => {
  fc.assert(
    fc.property(layerOf(0), layerOf(1), (under, over) => {
      const laid = overlay(segmentsOf(under), segmentsOf(over));
      assert.ok(isSorted(laid));
      assert.deepEqual(
        modelOf(laid),
        under.map((layer, i) => over[i] ?? layer),
      );
    }),
  );
});

test("filled gaps leave at most so many runs, keep every page, and fill the smallest first", () => {
  fc.assert(
    fc.property(layerOf(0), fc.integer({ min: 1, max: 20 }), (model, runsMax) => {
      const segments = segmentsOf(model);
      const filled = fillGaps(segments, { runsMax, filler: 9 });
      assert.ok(isSorted(filled));
      assert.ok(coalesce(filled).length <= Math.max(runsMax, 1));
      const after = modelOf(filled);
      model.forEach((layer, i) => {
        if (layer !== null) assert.equal(after[i], layer);
      });
      if (segments.length <= runsMax) assert.deepEqual(filled, segments);
    }),
  );
});

test("a table survives being written and read", () => {
  fc.assert(
    fc.property(layerOf(0), (model) => {
      const extents = coalesce(segmentsOf(model));
      assert.deepEqual(decodeExtents(encodeExtents(extents), where), extents);
    }),
  );
});

const wrong: readonly (readonly [string, readonly Extent[], RegExp])[] = [
  ["half a page", [{ offset: 0, length: 100 }], /whole pages/],
  ["an odd address", [{ offset: 7, length: pageBytes }], /whole pages/],
  ["nothing", [{ offset: 0, length: 0 }], /whole pages/],
  ["bytes past the RAM", [{ offset: memoryBytes, length: pageBytes }], /outside the RAM/],
  ["bytes up to no end", [{ offset: 0, length: 2 ** 60 }], /outside the RAM/],
  [
    "two that overlap",
    [
      { offset: 0, length: 2 * pageBytes },
      { offset: pageBytes, length: pageBytes },
    ],
    /begins before/,
  ],
];
for (const [what, extents, message] of wrong) {
  test(`a table is refused: ${what}`, () => {
    const table = encodeExtents(extents);
    assert.throws(() => decodeExtents(table, where), { code: "snapshot_corrupt", message });
  });
}

test("any bytes are a table or snapshot_corrupt", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      try {
        decodeExtents(Buffer.from(bytes), where);
      } catch (error) {
        assert.ok(error instanceof ForkdError && error.code === "snapshot_corrupt");
      }
    }),
  );
});
