import assert from "node:assert/strict";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { logTail } from "@forkd/host/engine/process.ts";
import { makeTmpDir } from "../../helpers/tmp.ts";

test("of a log that a guest has made huge, only the end is read", async () => {
  await using tmp = await makeTmpDir("log-tail");
  assert.equal(logTail(tmp.path), "");
  await using log = await open(join(tmp.path, "vmm.log"), "w");
  await log.write("first words\n");
  assert.equal(logTail(tmp.path), "first words");
  // More than fits one buffer of Node; the hole takes no space.
  const last = "x".repeat(5000);
  await log.write(`${last}\n`, 3 * 2 ** 30);
  assert.equal(logTail(tmp.path), last.slice(0, 4095));
});
