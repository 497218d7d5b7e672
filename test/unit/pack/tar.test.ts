import assert from "node:assert/strict";
import { Readable } from "node:stream";
import { test } from "node:test";
import { ForkdError } from "@forkd/api";
import { paddingBytes, type TarFile } from "@forkd/host/pack/tar-format.ts";
import { PackReader } from "@forkd/host/pack/tar-read.ts";
import { archiveEnd, encodeHeader } from "@forkd/host/pack/tar-write.ts";
import { coveredBytes } from "@forkd/host/store/extents.ts";
import fc from "fast-check";

const page = 4096;

/** Files whose data is what their addresses are, in runs of pages with holes between. */
const files = fc
  .array(
    fc.record({
      name: fc.stringMatching(/^[a-z0-9/._-]{1,100}$/),
      runs: fc.array(fc.tuple(fc.integer({ min: 0, max: 3 }), fc.integer({ min: 1, max: 3 })), {
        maxLength: 60,
      }),
      tail: fc.integer({ min: 0, max: 5000 }),
    }),
    { maxLength: 4 },
  )
  .map((all) => all.map(fileOf));

interface Recipe {
  readonly name: string;
  readonly runs: readonly (readonly [gap: number, length: number])[];
  readonly tail: number;
}

function fileOf({ name, runs, tail }: Recipe): TarFile {
  const extents = [];
  let end = 0;
  for (const [gap, pages] of runs) {
    const offset = end + (gap + (end === 0 ? 0 : 1)) * page;
    extents.push({ offset, length: pages * page });
    end = offset + pages * page;
  }
  return { name, size: end + tail, extents };
}

const dataOf = (file: TarFile): Buffer => Buffer.alloc(coveredBytes(file.extents), file.name);

function archive(all: readonly TarFile[]): Buffer {
  const parts = all.flatMap((file) => {
    const data = dataOf(file);
    return [encodeHeader(file), data, Buffer.alloc(paddingBytes(data.length))];
  });
  return Buffer.concat([...parts, archiveEnd]);
}

/** The bytes in pieces that end anywhere. */
function* pieces(bytes: Buffer, size: number): Generator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function readAll(bytes: Buffer, pieceBytes = 1000): Promise<[TarFile, Buffer][]> {
  const reader = new PackReader(Readable.from(pieces(bytes, pieceBytes)));
  const found: [TarFile, Buffer][] = [];
  for (let file = await reader.next(); file !== null; file = await reader.next()) {
    const parts: Buffer[] = [];
    await reader.data(file, async (piece) => void parts.push(Buffer.from(piece)));
    found.push([file, Buffer.concat(parts)]);
  }
  return found;
}

test("whatever is written is read again, in pieces of any size", async () => {
  await fc.assert(
    fc.asyncProperty(files, fc.integer({ min: 1, max: 9000 }), async (all, pieceBytes) => {
      assert.deepEqual(
        await readAll(archive(all), pieceBytes),
        all.map((file) => [file, dataOf(file)]),
      );
    }),
    { numRuns: 60 },
  );
});

test("sizes beyond what octal holds are written and read", async () => {
  const far = 2 ** 35;
  const file = { name: "far", size: far + page, extents: [{ offset: far, length: page }] };
  const [found] = await readAll(archive([file]));
  assert.deepEqual(found?.[0], file);
});

test("any damage is told as that of a pack, or changes nothing but data and names", async () => {
  const flips = fc.array(fc.tuple(fc.nat(), fc.integer({ min: 1, max: 255 })), { minLength: 1 });
  await fc.assert(
    fc.asyncProperty(files, flips, async (all, changes) => {
      const bytes = archive(all);
      for (const [where, bits] of changes) {
        const at = where % bytes.length;
        bytes[at] = (bytes[at] ?? 0) ^ bits;
      }
      try {
        for (const [file, data] of await readAll(bytes)) {
          assert.equal(coveredBytes(file.extents), data.length);
          const last = file.extents.at(-1);
          assert.ok(last === undefined || last.offset + last.length <= file.size);
        }
      } catch (error) {
        assert.ok(error instanceof ForkdError && error.code === "pack_invalid", String(error));
      }
    }),
    { numRuns: 200 },
  );
});

test("bytes that are no archive are refused", async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ minLength: 1, maxLength: 4000 }), async (bytes) => {
      await assert.rejects(readAll(Buffer.concat([Buffer.from([1]), bytes])), {
        code: "pack_invalid",
      });
    }),
  );
});

test("a table that goes on for ever is refused", async () => {
  const header = encodeHeader({ name: "x", size: page, extents: [] });
  header[482] = 1;
  header.fill(0x20, 148, 156);
  const sum = header.reduce((all, byte) => all + byte, 0);
  header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  const empty = Buffer.alloc(512);
  empty[504] = 1;
  await assert.rejects(readAll(Buffer.concat([header, empty, empty, empty])), /does not end/);
});
