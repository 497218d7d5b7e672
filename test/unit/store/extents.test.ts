import assert from "node:assert/strict";
import { test } from "node:test";
import { ForkdError } from "@forkd/api";
import {
  coalesce,
  coveredBytes,
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

test("filled gaps keep every page, the bounds, and add no more than there was unless they must", () => {
  const bound = fc.integer({ min: 1, max: 20 });
  fc.assert(
    fc.property(layerOf(0), bound, bound, (model, runsWanted, over) => {
      const runsMax = runsWanted + over;
      const segments = segmentsOf(model);
      const filled = fillGaps(segments, { runsWanted, runsMax }, 9);
      assert.ok(isSorted(filled));
      const runs = coalesce(filled).length;
      assert.ok(runs <= runsMax);
      const after = modelOf(filled);
      model.forEach((layer, i) => {
        if (layer !== null) assert.equal(after[i], layer);
      });
      const added = coveredBytes(filled) - coveredBytes(segments);
      if (segments.length <= runsWanted) assert.equal(added, 0);
      else if (runs < runsMax) assert.ok(added <= coveredBytes(segments));
    }),
  );
});

test("the smallest gaps are filled first, and only as far as is worth it", () => {
  const at = (number: number) => ({ offset: number * pageBytes, length: pageBytes, layer: 0 });
  const segments = [0, 2, 5, 30].map(at);
  const runsOf = (runsWanted: number, runsMax: number) =>
    coalesce(fillGaps(segments, { runsWanted, runsMax }, 1)).map(
      ({ length }) => length / pageBytes,
    );
  assert.deepEqual(runsOf(4, 8), [1, 1, 1, 1]);
  assert.deepEqual(runsOf(3, 8), [3, 1, 1]);
  assert.deepEqual(runsOf(1, 8), [6, 1]);
  assert.deepEqual(runsOf(1, 1), [31]);
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
