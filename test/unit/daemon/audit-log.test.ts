import assert from "node:assert/strict";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import type { AuditEntry } from "@forkd/host/daemon/audit.ts";
import { jsonLogger } from "@forkd/host/daemon/json-log.ts";
import { AuditLog } from "@forkd/host/fork/audit-log.ts";
import { silentLogger } from "@forkd/host/lib/log.ts";
import { makeTmpDir } from "../../helpers/tmp.ts";

const entry = (path: string): AuditEntry => ({
  ts: "2026-01-01T00:00:00Z",
  method: "GET",
  path,
  status: 200,
  latency_us: 1,
  ua: "",
  remote: "127.0.0.1",
  principal: "local",
  request_id: "r",
  outcome: "ok",
});

test("entries are kept in order, one a line, readable by the owner only", async () => {
  await using tmp = await makeTmpDir("audit");
  const path = join(tmp.path, "log", "audit.log");
  const names = Array.from({ length: 500 }, (_, index) => `/${index}\n"`);
  {
    await using log = await AuditLog.open(path, silentLogger);
    for (const name of names) log.write(entry(name));
  }
  const lines = (await readFile(path, "utf8")).trimEnd().split("\n");
  assert.deepEqual(
    lines.map((line) => JSON.parse(line).path),
    names,
  );
  assert.equal((await stat(path)).mode & 0o777, 0o600);
});

test("a later daemon appends", async () => {
  await using tmp = await makeTmpDir("audit");
  const path = join(tmp.path, "audit.log");
  for (const name of ["/a", "/b"]) {
    await using log = await AuditLog.open(path, silentLogger);
    log.write(entry(name));
  }
  assert.equal((await readFile(path, "utf8")).trimEnd().split("\n").length, 2);
});

test("a disk that refuses is told in the log and stops nobody", async () => {
  const lines: string[] = [];
  {
    await using log = await AuditLog.open(
      "/dev/full",
      jsonLogger((line) => lines.push(line)),
    );
    log.write(entry("/a"));
  }
  const text = lines.join("");
  assert.match(text, /cannot be written/);
  assert.match(text, /"msg":"audit entries were lost","count":1/);
});

test("a log line is one line of JSON, errors with their causes", () => {
  const lines: string[] = [];
  const log = jsonLogger((line) => lines.push(line)).child({ part: "x" });
  log.error("it\nbroke", { cause: new Error("outer", { cause: new Error("inner") }) });
  assert.equal(lines.length, 1);
  assert.equal(lines[0]?.split("\n").length, 2);
  const event = JSON.parse(lines[0] ?? "");
  assert.deepEqual([event.level, event.msg, event.part], ["error", "it\nbroke", "x"]);
  assert.equal(event.cause.message, "outer");
  assert.match(event.cause.causes[0], /^Error: inner/);
});
