import assert from "node:assert/strict";
import { createWriteStream } from "node:fs";
import { readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { buffer } from "node:stream/consumers";
import { test } from "node:test";
import { unpackSnapshot } from "@forkd/host/pack/unpack.ts";
import { packSnapshot } from "@forkd/host/pack/write.ts";
import { missing } from "../../helpers/capabilities.ts";
import { mapped, modelled } from "../../helpers/chains.ts";
import {
  fillSite,
  makePackSite,
  type PackSite,
  packOrder,
  samplePages,
  tagOf,
  unpackOrder,
} from "../../helpers/packs.ts";
import { makeTmpDir } from "../../helpers/tmp.ts";
import { runChild } from "../../runner/child.ts";

const skip = missing({ programs: ["zstd", "tar"], built: ["native/build/forkd-sparse"] });
const all = [samplePages.base, samplePages.one, samplePages.two];

async function packed(site: PackSite, tag: string, path: string): Promise<string> {
  await packSnapshot(site.host, packOrder(tag, { to: { file: path, replace: false } }));
  return path;
}

test("a chain with its disk and images comes whole to another host", { skip }, async () => {
  await using dir = await makeTmpDir("pack");
  await using from = await makePackSite();
  await using to = await makePackSite();
  await fillSite(from);
  const file = join(dir.path, "two.zst");
  const progress: number[] = [];
  const report = await packSnapshot(from.host, {
    ...packOrder("two", { to: { file, replace: false } }),
    onProgress: ({ doneBytes, totalBytes }) => progress.push(doneBytes / totalBytes),
  });
  assert.deepEqual(report.snapshots, ["base", "one", "two"]);
  assert.equal(report.size_bytes, (await stat(file)).size);
  assert.equal(progress.at(-1), 1);
  await rm(from.paths.dataDir, { recursive: true });

  const taken = await unpackSnapshot(
    to.host,
    unpackOrder({ from: { file }, sha256: report.sha256 }),
  );
  assert.deepEqual(
    taken.snapshots.map(({ tag, status }) => [tag, status]),
    [
      ["base", "ready"],
      ["one", "ready"],
      ["two", "ready"],
    ],
  );
  assert.deepEqual([taken.tag, taken.reused, taken.warnings], ["two", [], []]);
  const opened = await to.store.open(tagOf("two"));
  assert.deepEqual(await mapped(opened.memory), modelled(all));
  assert.equal(await readFile(opened.vmstateFile, "utf8"), "state in 3");
  const layers = opened.scratch?.layers ?? [];
  assert.deepEqual(await readFile(layers[2]?.file ?? "", "utf8"), "layer of two");
  const base = await to.store.open(tagOf("base"));
  const [first] = base.scratch?.layers ?? [];
  assert.equal((await stat(layers[0]?.file ?? "")).ino, (await stat(first?.file ?? "")).ino);
  const disk = await stat(first?.file ?? "");
  assert.ok(disk.blocks * 512 < disk.size / 10, "the disk is not sparse any more");
  const image = await stat(opened.rootImage);
  assert.ok(image.blocks * 512 < image.size / 2, "the root image is not sparse any more");
});

test("without zstd both ways say what installs it", { skip }, async () => {
  await using dir = await makeTmpDir("pack");
  await using site = await makePackSite();
  await fillSite(site);
  const file = await packed(site, "base", join(dir.path, "base.zst"));
  const hint = /apt-get install zstd/;
  const path = process.env["PATH"];
  process.env["PATH"] = dir.path;
  try {
    const again = packed(site, "base", join(dir.path, "again.zst"));
    await assert.rejects(again, { code: "tool_missing", hint });
    const taken = unpackSnapshot(site.host, unpackOrder({ from: { file }, tag: tagOf("x") }));
    await assert.rejects(taken, { code: "tool_missing", hint });
  } finally {
    process.env["PATH"] = path;
  }
  assert.deepEqual(await readdir(dir.path), ["base.zst"]);
});

test("GNU tar takes a pack apart into the very files", { skip }, async () => {
  await using dir = await makeTmpDir("pack");
  await using from = await makePackSite();
  await fillSite(from);
  const file = await packed(from, "base", join(dir.path, "base.zst"));
  const end = await runChild(["tar", "--zstd", "-xf", file, "-C", dir.path], {
    cwd: dir.path,
    env: process.env,
    deadlineMs: 60_000,
    onStdoutLine: () => undefined,
    onStderrLine: (line) => assert.fail(line),
  });
  assert.equal(end.code, 0);
  const { dir: source } = await from.store.open(tagOf("base"));
  for (const name of await readdir(source)) {
    const unpacked = await readFile(join(dir.path, "snapshots/base", name));
    assert.deepEqual(unpacked, await readFile(join(source, name)), name);
  }
});

test("ancestors that are here already are used, and disks shared with them", { skip }, async () => {
  await using dir = await makeTmpDir("pack");
  await using from = await makePackSite();
  await using to = await makePackSite();
  await fillSite(from);
  const one = await packed(from, "one", join(dir.path, "one.zst"));
  const two = await packed(from, "two", join(dir.path, "two.zst"));
  await unpackSnapshot(to.host, unpackOrder({ from: { file: one } }));
  const taken = await unpackSnapshot(
    to.host,
    unpackOrder({ from: { file: two }, tag: tagOf("x") }),
  );
  assert.deepEqual(taken.reused, ["base", "one"]);
  assert.deepEqual(
    taken.snapshots.map(({ tag, parent_tag }) => [tag, parent_tag]),
    [["x", "one"]],
  );
  const opened = await to.store.open(tagOf("x"));
  assert.deepEqual(await mapped(opened.memory), modelled(all));
  const shared = await stat(opened.scratch?.layers[0]?.file ?? "");
  assert.equal(shared.nlink, 3);
});

test("a thin pack needs the images on the other host, and says so", { skip }, async () => {
  await using dir = await makeTmpDir("pack");
  await using from = await makePackSite();
  await using bare = await makePackSite();
  await fillSite(from);
  const file = join(dir.path, "thin.zst");
  await packSnapshot(from.host, {
    ...packOrder("two", { to: { file, replace: false } }),
    images: "named",
  });
  const order = unpackOrder({ from: { file } });
  await assert.rejects(unpackSnapshot(bare.host, order), { code: "image_not_found" });
  assert.deepEqual(await bare.store.list(), []);
  for (const tag of ["two", "one", "base"]) await from.store.remove(tagOf(tag));
  await unpackSnapshot(from.host, order);
  const opened = await from.store.open(tagOf("two"));
  assert.deepEqual(await mapped(opened.memory), modelled(all));
});

test("a pack goes through streams, and a failed one leaves no file", { skip }, async () => {
  await using dir = await makeTmpDir("pack");
  await using from = await makePackSite();
  await using to = await makePackSite();
  await fillSite(from);
  const pipe = new PassThrough();
  const [report, bytes] = await Promise.all([
    packSnapshot(from.host, packOrder("two", { to: { stream: pipe } })),
    buffer(pipe),
  ]);
  assert.equal(report.path, null);
  const source = new PassThrough();
  source.end(bytes);
  await unpackSnapshot(to.host, unpackOrder({ from: { stream: source }, sha256: report.sha256 }));
  const { rootImage } = await from.store.open(tagOf("two"));
  await rm(rootImage, { force: true });
  await writeFile(rootImage, Buffer.alloc(3 * 1024 * 1024, 1));
  const file = join(dir.path, "bad.zst");
  await assert.rejects(packed(from, "two", file), { code: "snapshot_corrupt" });
  assert.deepEqual(await readdir(dir.path), []);
  const closed = createWriteStream(join(dir.path, "closed"));
  closed.destroy();
  await assert.rejects(packSnapshot(from.host, packOrder("base", { to: { stream: closed } })));
});

test("a file that is there is kept, unless it is to be replaced", { skip }, async () => {
  await using dir = await makeTmpDir("pack");
  await using from = await makePackSite();
  await fillSite(from);
  const file = join(dir.path, "x.zst");
  await writeFile(file, "mine");
  await assert.rejects(packed(from, "base", file), { code: "snapshot_exists" });
  assert.equal(await readFile(file, "utf8"), "mine");
  await packSnapshot(from.host, packOrder("base", { to: { file, replace: true } }));
  assert.notEqual(await readFile(file, "utf8"), "mine");
  const nowhere = join(dir.path, "nowhere/x.zst");
  await assert.rejects(packed(from, "base", nowhere), { code: "bad_request" });
  const there = unpackOrder({ from: { file: dir.path } });
  await assert.rejects(unpackSnapshot(from.host, there), { code: "bad_request" });
  const force = (isForced: boolean) =>
    unpackSnapshot(from.host, unpackOrder({ from: { file }, force: isForced }));
  await assert.rejects(force(false), { code: "snapshot_exists" });
  await assert.rejects(force(true), { code: "snapshot_in_use" });
  for (const tag of ["two", "one"]) await from.store.remove(tagOf(tag));
  assert.equal((await force(true)).tag, "base");
});
