import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { repoRoot } from "../../helpers/baked.ts";
import { missing } from "../../helpers/capabilities.ts";
import { type FakeHost, makeFakeHost } from "../../helpers/fake-host.ts";
import { runChild } from "../../runner/child.ts";

const needs = { built: ["native/build/forkd-launch", "native/build/forkd-ram.so"] };

/** The command line without a daemon: how it ended, and all that it said. */
async function forkdOn(host: FakeHost, ...words: string[]) {
  const said: string[] = [];
  const { code } = await runChild([join(repoRoot, "bin/forkd"), ...words], {
    cwd: repoRoot,
    env: { PATH: `${host.programs}:${process.env["PATH"]}`, FORKD_DATA_DIR: host.dataDir },
    deadlineMs: 60_000,
    onStdoutLine: (line) => said.push(line),
    onStderrLine: (line) => said.push(line),
  });
  return { code, said: said.join("\n") };
}

async function auditOf(host: FakeHost) {
  const text = await readFile(join(host.dataDir, "audit.log"), "utf8");
  return text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
}

test("a command line that works without a daemon is audited too", {
  skip: missing(needs),
}, async () => {
  await using host = await makeFakeHost();
  const { code, said } = await forkdOn(
    host,
    ...["fork", "--tag", host.tag, "--n", "2", "--settle-secs", "0"],
  );
  assert.equal(code, 0, said);
  const lines = await auditOf(host);
  assert.equal(lines.length, 2);
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

test("what it does to snapshots is audited as well, in one chain", async () => {
  await using host = await makeFakeHost();
  for (const outcome of ["ok", "snapshot_not_found"]) {
    const { code, said } = await forkdOn(host, "rmi", host.tag);
    assert.equal(code, outcome === "ok" ? 0 : 1, said);
  }
  const facts = (await auditOf(host)).map(({ operation, outcome, snapshot_tag, seq }) => [
    ...[operation, outcome, snapshot_tag, seq],
  ]);
  assert.deepEqual(facts, [
    ["delete", "ok", host.tag, 1],
    ["delete", "snapshot_not_found", host.tag, 2],
  ]);
  const verified = await forkdOn(host, "audit", "verify");
  assert.equal(verified.code, 0, verified.said);
  assert.match(verified.said, /entries 1 to 2, 2 in all: nothing was changed/);
});
