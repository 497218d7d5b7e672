import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { ForkdError } from "@forkd/api";
import {
  detectCodec,
  extractVmlinux,
  isBzImage,
  parseBzImage,
} from "@forkd/host/kernel/bzimage.ts";
import fc from "fast-check";
import { writeBzImage, writeElf } from "../../helpers/kernel-fixture.ts";
import { makeTmpDir } from "../../helpers/tmp.ts";

const elf = writeElf({ ".text": "kernel" });
const sizeOf = (data: Buffer): Buffer => {
  const size = Buffer.alloc(4);
  size.writeUInt32LE(data.length);
  return size;
};

async function extract(payload: Buffer): Promise<Buffer> {
  await using dir = await makeTmpDir("bzimage");
  const path = join(dir.path, "vmlinuz");
  await writeFile(path, writeBzImage("6.1.0", payload));
  return await extractVmlinux(path, dir.path);
}

test("the header says where the payload is and which release it is", () => {
  const payload = gzipSync(elf);
  const image = writeBzImage("6.1.0-9-cloud-amd64", payload);
  const header = parseBzImage(image);
  assert.equal(header.release, "6.1.0-9-cloud-amd64");
  const found = image.subarray(header.payloadOffset, header.payloadOffset + header.payloadBytes);
  assert.deepEqual(found, payload);
});

test("gzip and zstd kernels are extracted", async () => {
  assert.deepEqual(await extract(gzipSync(elf)), elf);
  assert.deepEqual(await extract(Buffer.concat([zstdCompressSync(elf), sizeOf(elf)])), elf);
});

test("what does not hold an ELF kernel is refused", async () => {
  await assert.rejects(extract(gzipSync(Buffer.from("no kernel at all"))), {
    code: "image_invalid",
    message: /no ELF/,
  });
  await assert.rejects(extract(Buffer.alloc(64)), {
    code: "image_invalid",
    message: /compression/,
  });
});

test("compressions are told by their first bytes", () => {
  assert.equal(detectCodec(gzipSync(elf)), "gzip");
  assert.equal(detectCodec(zstdCompressSync(elf)), "zstd");
  assert.equal(detectCodec(Buffer.from("fd377a585a0000", "hex")), "xz");
  assert.equal(detectCodec(Buffer.from("02214c1800", "hex")), "lz4");
  assert.equal(detectCodec(Buffer.from("00", "hex")), undefined);
});

test("files that are no bzImage are told", () => {
  assert.equal(isBzImage(elf), false);
  assert.equal(isBzImage(Buffer.alloc(0)), false);
  assert.throws(() => parseBzImage(Buffer.alloc(4096)), { code: "image_invalid" });
});

test("a damaged header is refused or points inside the file", () => {
  const image = writeBzImage("6.1.0", gzipSync(elf));
  fc.assert(
    fc.property(fc.integer({ min: 0x1f0, max: 0x260 }), fc.nat(255), (at, value) => {
      const damaged = Buffer.from(image);
      damaged[at] = value;
      try {
        const { payloadOffset, payloadBytes } = parseBzImage(damaged);
        assert.ok(payloadOffset + payloadBytes <= damaged.length);
      } catch (error) {
        assert.ok(error instanceof ForkdError, String(error));
      }
    }),
  );
});
