import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { repoRoot } from "../../helpers/baked.ts";
import { missing } from "../../helpers/capabilities.ts";
import { makeFakeHost } from "../../helpers/fake-host.ts";
import { runChild } from "../../runner/child.ts";

const needs = { built: ["native/build/forkd-launch", "native/build/forkd-ram.so"] };

test("a command line that works without a daemon is audited too", {
  skip: missing(needs),
}, async () => {
  await using host = await makeFakeHost();
  const said: string[] = [];
  const words = ["fork", "--tag", host.tag, "--n", "2", "--settle-secs", "0"];
  const { code } = await runChild([join(repoRoot, "bin/forkd"), ...words], {
    cwd: repoRoot,
    env: { PATH: `${host.programs}:${process.env["PATH"]}`, FORKD_DATA_DIR: host.dataDir },
    deadlineMs: 60_000,
    onStdoutLine: (line) => said.push(line),
    onStderrLine: (line) => said.push(line),
  });
  assert.equal(code, 0, said.join("\n"));
  const text = await readFile(join(host.dataDir, "audit.log"), "utf8");
  const lines = text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  assert.equal(lines.length, 2, text);
  for (const line of lines) {
    const { operation, outcome, principal, remote, request_id, snapshot_tag } = line;
    assert.deepEqual(
      [operation, outcome, principal, request_id, snapshot_tag],
      ["spawn", "ok", "cli", null, host.tag],
    );
    assert.equal(remote, `uid:${process.getuid?.()}`);
    assert.equal(line.identity.hostname, line.sandbox_id);
  }
});
