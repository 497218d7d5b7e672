import assert from "node:assert/strict";
import { test } from "node:test";
import { ForkdError } from "@forkd/api";
import { coalesce, type Extent } from "@forkd/host/store/extents.ts";
import {
  chunkBytes,
  chunksOf,
  decodeIndex,
  encodeIndex,
  type MemoryIndex,
} from "@forkd/host/store/memory-index.ts";
import fc from "fast-check";

const page = 4096;
const memoryBytes = 8 * chunkBytes;

const extentsArb: fc.Arbitrary<Extent[]> = fc
  .uniqueArray(fc.nat(memoryBytes / page - 1), { maxLength: 60 })
  .map((numbers) => {
    const sorted = numbers.sort((a, b) => a - b);
    return coalesce(sorted.map((n) => ({ offset: n * page, length: page })));
  });

const indexArb: fc.Arbitrary<MemoryIndex> = extentsArb.map((extents) => ({
  memoryBytes,
  extents,
  hashes: [...chunksOf(extents)].map((_, i) => Buffer.alloc(32, i)),
}));

test("an index survives being written and read", () => {
  fc.assert(
    fc.property(indexArb, (index) => {
      assert.deepEqual(decodeIndex(encodeIndex(index), "p"), index);
    }),
  );
});

test("chunks cover exactly the extents, each inside of one MiB", () => {
  fc.assert(
    fc.property(extentsArb, (extents) => {
      const chunks = [...chunksOf(extents)];
      assert.deepEqual(coalesce(chunks.flatMap(({ parts }) => parts)), extents);
      for (const { offset, parts } of chunks) {
        assert.equal(offset % chunkBytes, 0);
        for (const part of parts) {
          assert.ok(part.offset >= offset && part.offset + part.length <= offset + chunkBytes);
        }
      }
    }),
  );
});

test("an extent over many chunks is cut at each", () => {
  const chunks = [...chunksOf([{ offset: page, length: 3 * chunkBytes }])];
  assert.deepEqual(
    chunks.map(({ offset }) => offset / chunkBytes),
    [0, 1, 2, 3],
  );
});

function requireDecodes(bytes: Buffer): void {
  try {
    decodeIndex(bytes, "/the/index");
  } catch (error) {
    assert.ok(error instanceof ForkdError, String(error));
    assert.equal(error.code, "snapshot_corrupt");
    assert.match(error.message, /^\/the\/index: /);
  }
}

test("an index that is cut off anywhere is refused", () => {
  const extents = [
    { offset: 0, length: page },
    { offset: 2 * chunkBytes, length: 2 * chunkBytes },
  ];
  const hashes = [...chunksOf(extents)].map(() => Buffer.alloc(32, 1));
  const bytes = encodeIndex({ memoryBytes, extents, hashes });
  decodeIndex(bytes, "p");
  for (let length = 0; length < bytes.length; length += 1) {
    assert.throws(() => decodeIndex(bytes.subarray(0, length), "p"), { code: "snapshot_corrupt" });
  }
  assert.throws(() => decodeIndex(Buffer.concat([bytes, Buffer.alloc(1)]), "p"), {
    code: "snapshot_corrupt",
  });
});

test("any bytes, and any change of a right index, are an index or snapshot_corrupt", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => requireDecodes(Buffer.from(bytes))),
  );
  fc.assert(
    fc.property(indexArb, fc.nat(), fc.nat(255), (index, at, byte) => {
      const bytes = encodeIndex(index);
      bytes[at % bytes.length] = byte;
      requireDecodes(bytes);
    }),
    { numRuns: 500 },
  );
});

test("a header that promises more than memory can hold costs nothing", () => {
  const bytes = encodeIndex({ memoryBytes, extents: [], hashes: [] });
  bytes.writeUInt32LE(0xffff_ffff, 28);
  bytes.writeUInt32LE(0xffff_ffff, 32);
  assert.throws(() => decodeIndex(bytes, "p"), { code: "snapshot_corrupt" });
});
