import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { publishDir, replaceFile, writeFileAtomic } from "@forkd/host/lib/atomic.ts";
import { sha256File } from "@forkd/host/lib/hash.ts";

let dir = "";
before(async () => {
  dir = await mkdtemp(join(tmpdir(), "forkd-atomic-"));
});
after(() => rm(dir, { recursive: true, force: true }));

test("a written file is whole, and nothing is left beside it", async () => {
  for (const write of [writeFileAtomic, replaceFile]) {
    await write(join(dir, "f"), "one");
    await write(join(dir, "f"), "two");
    assert.equal(await readFile(join(dir, "f"), "utf8"), "two");
  }
  assert.deepEqual(await readdir(dir), ["f"]);
});

test("a write that fails leaves nothing", async () => {
  await assert.rejects(writeFileAtomic(join(dir, "missing", "f"), "x"));
  await mkdir(join(dir, "d"));
  await assert.rejects(writeFileAtomic(join(dir, "d"), "x"));
  assert.deepEqual((await readdir(dir)).sort(), ["d", "f"]);
});

test("a directory is published under a free name only", async () => {
  const staging = join(dir, "staging");
  await mkdir(staging);
  await writeFile(join(staging, "a"), "1");
  await publishDir(staging, join(dir, "final"));
  assert.equal(await readFile(join(dir, "final", "a"), "utf8"), "1");
  await mkdir(staging);
  await assert.rejects(publishDir(staging, join(dir, "final")), { code: "snapshot_exists" });
});

test("hashing agrees with a known digest, and a missing file is an error", async () => {
  await writeFile(join(dir, "abc"), "abc");
  // The SHA-256 example of FIPS 180-2, appendix B.1.
  const digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
  assert.equal(await sha256File(join(dir, "abc")), digest);
  await assert.rejects(sha256File(join(dir, "nope")), { code: "ENOENT" });
});
