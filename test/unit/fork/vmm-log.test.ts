import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdir, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { limits, parseSandboxId, type SandboxInfo } from "@forkd/api";
import { resolveDataPaths } from "@forkd/host/config/data-paths.ts";
import { History } from "@forkd/host/fork/history.ts";
import { sandboxLog } from "@forkd/host/fork/logs.ts";
import { lastLines, readVmmLog } from "@forkd/host/fork/vmm-log.ts";
import { sampleRecord } from "../../helpers/sample-record.ts";
import { makeTmpDir } from "../../helpers/tmp.ts";

test("the end of a log is read in whole lines, without what a terminal obeys", async () => {
  await using tmp = await makeTmpDir("vmm-log");
  const path = join(tmp.path, "vmm.log");
  assert.equal(await readVmmLog(tmp.path), undefined);
  await writeFile(path, "a\tb\r\nc\x1b[2J\x07\x9b\n");
  assert.equal(await readVmmLog(tmp.path), "a\tb\nc\ufffd[2J\ufffd\ufffd\n");
  await writeFile(path, `${"x".repeat(limits.logBytesMax)}\nlast\n`);
  assert.equal(await readVmmLog(tmp.path), "last\n");
  await writeFile(path, "y".repeat(2 * limits.logBytesMax));
  assert.equal(await readVmmLog(tmp.path), "y".repeat(limits.logBytesMax));
});

test("what a VMM put in the place of its log is not followed, and holds up nobody", async () => {
  await using tmp = await makeTmpDir("vmm-log-hostile");
  const path = join(tmp.path, "vmm.log");
  await writeFile(join(tmp.path, "secret"), "secret\n");
  await symlink("secret", path);
  assert.equal(await readVmmLog(tmp.path), undefined);
  await rm(path);
  execFileSync("mkfifo", [path]);
  assert.equal(await readVmmLog(tmp.path), undefined);
  await rm(path);
  await mkdir(path);
  assert.equal(await readVmmLog(tmp.path), undefined);
});

test("the last lines of a text", () => {
  assert.equal(lastLines("a\nb\nc\n", 2), "b\nc\n");
  assert.equal(lastLines("a\nb\nc", 2), "b\nc");
  assert.equal(lastLines("a\n", 9), "a\n");
  assert.equal(lastLines("", 1), "");
});

test("a history keeps a log as long as the end, bytes that are no text too", async () => {
  await using tmp = await makeTmpDir("history-log");
  const history = await History.open(tmp.path, 1);
  const log = "\ufffd".repeat(limits.logBytesMax);
  await history.add(ended("sb-1", 1), log);
  assert.equal(await history.log(parseSandboxId("sb-1")), log);
  const later = await History.open(tmp.path, 1);
  assert.equal(await later.log(parseSandboxId("sb-1")), log);
  await later.add(ended("sb-2", 2));
  assert.equal(await later.log(parseSandboxId("sb-2")), undefined);
  // The oldest has made room, its log too.
  assert.deepEqual(await readdir(tmp.path), ["0000000000002-sb-2.json"]);
});

test("without a log there is nothing to show, and for one that has ended a reason", async () => {
  await using tmp = await makeTmpDir("no-log");
  const deps = { paths: resolveDataPaths({ FORKD_DATA_DIR: tmp.path }, 0), history: null };
  const logOf = (info: SandboxInfo): Promise<string> =>
    sandboxLog({ deps, sandboxes: { get: async () => info } }, parseSandboxId(info.id));
  assert.equal(await logOf(sampleRecord("sb-1").info), "");
  await assert.rejects(logOf(ended("sb-1", 1)), {
    code: "sandbox_ended",
    message: /its VMM had printed nothing/,
    hint: "see what is known of its end with: forkd inspect sb-1",
  });
});

function ended(id: string, at: number): SandboxInfo {
  return {
    ...sampleRecord(id).info,
    state: "ended",
    end: { reason: "killed", at_unix_ms: at, detail: "" },
  };
}
