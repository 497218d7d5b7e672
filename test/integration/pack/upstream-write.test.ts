import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { test } from "node:test";
import { unpackSnapshot } from "@forkd/host/pack/unpack.ts";
import { packSnapshot } from "@forkd/host/pack/write.ts";
import { z } from "zod";
import { repoRoot } from "../../helpers/baked.ts";
import { missing } from "../../helpers/capabilities.ts";
import {
  fillFirecrackerSite,
  fillSite,
  makePackSite,
  packOrder,
  samplePages,
  tagOf,
  unpackOrder,
} from "../../helpers/packs.ts";
import { makeTmpDir } from "../../helpers/tmp.ts";
import { runChild } from "../../runner/child.ts";

const skip = missing({ programs: ["zstd", "python3"], built: ["native/build/forkd-sparse"] });

const fileSchema = z.object({ path: z.string(), size: z.number(), sha256: z.string() });
const readSchema = z.object({
  manifest: z.object({
    forkd_pack_version: z.number(),
    tag: z.string(),
    description: z.string().optional(),
    base_image: z.string(),
    created_at: z.string(),
    files: fileSchema.array(),
    rootfs: z.object({ target_path: z.string(), sha256: z.string(), size: z.number() }),
  }),
  record: z.object({
    vmstate: z.string(),
    memory: z.string(),
    volumes: z.unknown().array(),
    rootfs: z.string(),
  }),
  image: z.string().nullable(),
});

/** What a reader that was written from the documented format alone makes of a pack. */
async function readByScript(pack: string): Promise<z.infer<typeof readSchema>> {
  let text = "";
  const words: string[] = [];
  const script = join(repoRoot, "test/fixtures/upstream-unpack.py");
  const end = await runChild(["python3", script, pack], {
    cwd: repoRoot,
    env: process.env,
    deadlineMs: 60_000,
    onStdoutLine: (line) => {
      text += line;
    },
    onStderrLine: (line) => words.push(line),
  });
  assert.equal(end.code, 0, words.join("\n"));
  return readSchema.parse(JSON.parse(text));
}

test("a base of Firecracker becomes a pack of upstream's version 1", { skip }, async () => {
  await using dir = await makeTmpDir("pack-upstream");
  await using site = await makePackSite();
  const image = await fillFirecrackerSite(site);
  const file = join(dir.path, "fire.zst");
  const order = packOrder("fire", { to: { file, replace: false }, format: "upstream" });
  const report = await packSnapshot(site.host, { ...order, description: "a sample" });
  assert.deepEqual((await readdir(dir.path)).sort(), [
    `${image.slice(0, 16)}.rootfs.zst`,
    "fire.zst",
  ]);
  assert.equal(report.root_image_path, join(dir.path, `${image.slice(0, 16)}.rootfs.zst`));

  const { manifest, record, image: seen } = await readByScript(file);
  assert.deepEqual(
    [manifest.forkd_pack_version, manifest.tag, manifest.description, manifest.base_image],
    [1, "fire", "a sample", "debian:bookworm"],
  );
  assert.match(manifest.created_at, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
  const names = manifest.files.map(({ path }) => path);
  assert.deepEqual(names, ["snapshot.json", "vmstate", "memory.bin"]);
  assert.deepEqual([manifest.rootfs.sha256, seen], [image, image]);
  const home = join(site.paths.snapshotsDir, "fire");
  assert.deepEqual(record, {
    vmstate: join(home, "vmstate"),
    memory: join(home, "memory.bin"),
    volumes: [],
    rootfs: manifest.rootfs.target_path,
  });

  await using other = await makePackSite();
  const taken = await unpackSnapshot(other.host, unpackOrder({ from: { file } }));
  assert.deepEqual([taken.tag, taken.snapshots[0]?.bootable], ["fire", false]);
  const memory = await readFile(join(other.paths.snapshotsDir, "fire", "memory.bin"));
  assert.ok(memory.equals(await readFile(join(home, "memory.bin"))));
  assert.equal(memory[7 * 4096], samplePages.base.get(7));
});

test("without its root image it is one file, and may be a stream", { skip }, async () => {
  await using dir = await makeTmpDir("pack-upstream");
  await using site = await makePackSite();
  const image = await fillFirecrackerSite(site);
  const file = join(dir.path, "fire.zst");
  const order = packOrder("fire", { to: { file, replace: false }, format: "upstream" });
  const report = await packSnapshot(site.host, { ...order, images: "named" });
  assert.equal(report.root_image_path, null);
  assert.deepEqual(await readdir(dir.path), ["fire.zst"]);
  const read = await readByScript(file);
  assert.deepEqual([read.image, read.manifest.rootfs.sha256], [null, image]);
  await assert.rejects(packSnapshot(site.host, { ...order, to: { stream: new PassThrough() } }), {
    code: "bad_request",
    hint: /--thin/,
  });
});

test("what upstream's form cannot hold is refused, and nothing is written", { skip }, async () => {
  await using dir = await makeTmpDir("pack-upstream");
  await using site = await makePackSite();
  await fillSite(site);
  const file = join(dir.path, "no.zst");
  for (const tag of ["base", "two"]) {
    const order = packOrder(tag, { to: { file, replace: false }, format: "upstream" });
    await assert.rejects(packSnapshot(site.host, order), {
      code: "bad_request",
      message: /is of qemu, upstream's packs are of Firecracker/,
      hint: /--format/,
    });
  }
  assert.ok(!existsSync(file));
  assert.deepEqual(
    (await readdir(site.paths.snapshotsDir)).sort(),
    ["base", "one", "two"].map(tagOf),
  );
});
