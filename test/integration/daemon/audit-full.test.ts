import assert from "node:assert/strict";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { run } from "@forkd/host/lib/exec.ts";
import { repoRoot } from "../../helpers/baked.ts";
import { missing } from "../../helpers/capabilities.ts";
import { makeTmpDir } from "../../helpers/tmp.ts";

const skip = missing({ root: true, programs: ["unshare", "mount"] });

test("a full disk costs entries, never half a line, and the log says how many", {
  skip,
}, async () => {
  await using tmp = await makeTmpDir("full");
  const [full, copy] = [join(tmp.path, "full"), join(tmp.path, "copy.log")];
  await mkdir(full);
  const script = join(repoRoot, "test/helpers/audit-on-full-disk.ts");
  const commands = [
    `mount -t tmpfs -o size=64k tmpfs '${full}'`,
    `'${repoRoot}/scripts/node' '${script}' '${full}'`,
    `cp '${full}/audit.log' '${copy}'`,
  ];
  const { stdout } = await run(["unshare", "--mount", "sh", "-euc", commands.join("\n")]);
  const { refusals, whileFull, after } = JSON.parse(stdout);
  assert.ok(refusals > 0, "it was full");
  assert.deepEqual([whileFull.findings, after.findings], [[], []]);
  const lines = (await readFile(copy, "utf8")).trimEnd().split("\n");
  const entries = lines.map((line) => JSON.parse(line));
  const lost = entries.find(({ audit }) => audit === "lost");
  assert.equal(entries.length - 1 + lost.count, 6, "every entry is there or counted");
  assert.equal(entries.at(-1).text, "after");
});
