import assert from "node:assert/strict";
import { readdir, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { PartialFile, sweepPartials } from "@forkd/host/remote/partials.ts";
import { makeTmpDir } from "../../helpers/tmp.ts";

const start = { offset: 0, version: null };

test("goes on only with bytes whose version or whose hash is known", async () => {
  await using dir = await makeTmpDir("partials");
  const partial = new PartialFile(dir.path, "https://host/pack");
  assert.deepEqual(await partial.resumePoint(true), start);
  await partial.begin(0, '"v1"');
  await writeFile(partial.file, "12345678");
  assert.deepEqual(await partial.resumePoint(false), { offset: 8, version: '"v1"' });
  await partial.begin(4, null);
  assert.deepEqual(await partial.resumePoint(false), start);
  assert.deepEqual(await partial.resumePoint(true), { offset: 4, version: null });
  await writeFile(partial.file.replace(/part$/, "json"), "{");
  assert.deepEqual(await partial.resumePoint(true), start);
  await partial.discard();
  assert.deepEqual(await readdir(dir.path), []);
});

test("keeps a few that are new enough, and what it does not know", async () => {
  await using dir = await makeTmpDir("partials");
  const nowMs = Date.now();
  const made: PartialFile[] = [];
  for (let n = 0; n < 10; n += 1) {
    const partial = new PartialFile(dir.path, `https://host/${n}`);
    await partial.begin(0, '"v"');
    await writeFile(partial.file, "x");
    const daysOld = n === 0 ? 8 : 0;
    const at = nowMs / 1000 - daysOld * 86_400 - n;
    await utimes(partial.file, at, at);
    await utimes(partial.file.replace(/part$/, "json"), at, at);
    made.push(partial);
  }
  await writeFile(join(dir.path, "other"), "");
  await sweepPartials(dir.path, nowMs);
  const left = (await readdir(dir.path)).filter((name) => name.endsWith(".part"));
  assert.equal(left.length, 8);
  for (const gone of [made[0], made[9]]) {
    assert.ok(gone !== undefined && !left.some((name) => gone.file.endsWith(name)));
  }
  assert.ok((await readdir(dir.path)).includes("other"));
});
