import assert from "node:assert/strict";
import { readdir, readFile, stat, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { FlatImages } from "@forkd/host/fork/flat-images.ts";
import { writeExtents } from "../../conformance/layers.ts";
import { missing } from "../../helpers/capabilities.ts";
import { makeTmpDir } from "../../helpers/tmp.ts";

const skip = missing({ built: ["native/build/forkd-sparse"] });
const page = 4096;

async function makeImage(dir: string) {
  const file = (name: string): string => join(dir, name);
  await writeFile(file("base"), Buffer.alloc(8 * page, "b"));
  const pages = Buffer.alloc(8 * page);
  pages.fill("o", 2 * page, 3 * page);
  await writeFile(file("pages"), pages);
  await writeExtents(file("extents"), [{ offset: 2 * page, length: 2 * page }]);
  return { base: file("base"), overlay: { file: file("pages"), extents: file("extents") } };
}

const pagesOf = (bytes: Buffer): string =>
  Array.from({ length: bytes.length / page }, (_, i) => bytes[i * page])
    .map((byte) => (byte === 0 ? "0" : String.fromCharCode(byte ?? 0)))
    .join("");

test("an image without overlay is its base", async () => {
  const image = { base: "/nowhere/base", overlay: null };
  assert.equal(await new FlatImages("/nowhere").flatten(image), "/nowhere/base");
});

test("the overlay lies over the base, with its zeros", { skip }, async () => {
  await using tmp = await makeTmpDir("flat");
  const image = await makeImage(tmp.path);
  const flat = await new FlatImages(join(tmp.path, "flat")).flatten(image);
  assert.equal(pagesOf(await readFile(flat)), "bbo0bbbb");
  assert.equal(pagesOf(await readFile(image.base)), "bbbbbbbb");
});

test("an image is made once, also for those who ask at once", { skip }, async () => {
  await using tmp = await makeTmpDir("flat");
  const image = await makeImage(tmp.path);
  const dir = join(tmp.path, "flat");
  const images = new FlatImages(dir);
  const paths = await Promise.all([1, 2, 3].map(() => images.flatten(image)));
  const { ino } = await stat(paths[0] ?? assert.fail());
  const again = await new FlatImages(dir).flatten(image);
  assert.equal(new Set([...paths, again]).size, 1);
  assert.equal((await stat(again)).ino, ino);
  assert.equal((await readdir(dir)).length, 1);
});

test("a layer that was replaced makes another image", { skip }, async () => {
  await using tmp = await makeTmpDir("flat");
  const image = await makeImage(tmp.path);
  const images = new FlatImages(join(tmp.path, "flat"));
  const before = await images.flatten(image);
  await writeFile(image.overlay.file, Buffer.alloc(8 * page, "n"));
  const after = await images.flatten(image);
  assert.notEqual(after, before);
  assert.equal(pagesOf(await readFile(after)), "bbnnbbbb");
});

test("a failure leaves nothing half-made", { skip }, async () => {
  await using tmp = await makeTmpDir("flat");
  const image = await makeImage(tmp.path);
  await writeFile(image.overlay.extents, "short");
  const dir = join(tmp.path, "flat");
  await assert.rejects(new FlatImages(dir).flatten(image), { code: "tool_failed" });
  assert.deepEqual(await readdir(dir), []);
});

test("the least used go when there are too many, but none that is fresh", { skip }, async () => {
  await using tmp = await makeTmpDir("flat");
  const image = await makeImage(tmp.path);
  const dir = join(tmp.path, "flat");
  const kept = await new FlatImages(dir).flatten(image);
  const long = new Date(Date.now() - 3_600_000);
  for (let i = 0; i < 40; i += 1) {
    const old = join(dir, `${i}.img`);
    await writeFile(old, "old");
    if (i >= 2) await utimes(old, long, long);
  }
  await writeFile(image.overlay.file, Buffer.alloc(8 * page, "n"));
  const made = await new FlatImages(dir).flatten(image);
  const names = await readdir(dir);
  assert.equal(names.length, 32);
  const fresh = [kept, made, join(dir, "0.img"), join(dir, "1.img")];
  assert.deepEqual(
    fresh.filter((path) => !names.includes(path.slice(dir.length + 1))),
    [],
  );
});
