import assert from "node:assert/strict";
import { appendFile, readFile, rename, symlink, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { AuditFile, readHead } from "@forkd/host/fork/audit-file.ts";
import { AuditLog } from "@forkd/host/fork/audit-log.ts";
import { findAuditFiles, verifyAudit } from "@forkd/host/fork/audit-verify.ts";
import { silentLogger } from "@forkd/host/lib/log.ts";
import fc from "fast-check";
import { makeTmpDir } from "../../helpers/tmp.ts";

/** Writes so many entries as one run of a program does. */
async function writeRun(path: string, count: number): Promise<void> {
  await using log = await AuditLog.open(path, silentLogger);
  for (let i = 0; i < count; i += 1) log.write({ event: i, text: 'x\n"é' });
}

async function linesOf(path: string): Promise<string[]> {
  return (await readFile(path, "utf8")).trimEnd().split("\n");
}

const put = (path: string, lines: readonly string[]): Promise<void> =>
  writeFile(path, lines.map((line) => `${line}\n`).join(""));

/** What the command verifies: the log, its rotations and what is kept beside it. */
async function verifyHost(path: string) {
  const kept = await readHead(path);
  return await verifyAudit(await findAuditFiles(path), kept === undefined ? [] : [kept]);
}

test("one chain goes through restarts, rotations and compression", async () => {
  await using tmp = await makeTmpDir("chain");
  const path = join(tmp.path, "audit.log");
  await writeRun(path, 3);
  await writeRun(path, 2);
  await rename(path, `${path}.2`);
  await writeRun(path, 4);
  await rename(path, `${path}.1`);
  await writeFile(`${path}.2.gz`, gzipSync(await readFile(`${path}.2`)));
  await rename(`${path}.2`, join(tmp.path, "elsewhere"));
  await writeRun(path, 1);
  const verdict = await verifyHost(path);
  assert.deepEqual(verdict.findings, []);
  assert.deepEqual([verdict.first, verdict.last?.seq, verdict.entries], [1, 10, 10]);
  assert.deepEqual(verdict.files, [`${path}.2.gz`, `${path}.1`, path]);
});

test("a rotation under an open log loses nothing, signal or not", async () => {
  await using tmp = await makeTmpDir("chain");
  const path = join(tmp.path, "audit.log");
  {
    await using log = await AuditLog.open(path, silentLogger);
    for (let turn = 0; turn < 8; turn += 1) {
      log.write({ turn });
      await log.reopen();
      await rename(path, `${path}.${8 - turn}`);
      if (turn % 2 === 0) await log.reopen();
      log.write({ turn, late: true });
    }
  }
  const verdict = await verifyHost(path);
  assert.deepEqual(verdict.findings, []);
  assert.equal(verdict.entries, 16);
});

test("two programs that write to one log make one chain", async () => {
  await using tmp = await makeTmpDir("chain");
  const path = join(tmp.path, "audit.log");
  const writers = await Promise.all([1, 2, 3].map(() => AuditFile.open(path)));
  const work = writers.map(async (file, writer) => {
    for (let i = 0; i < 20; i += 1) await file.append([{ writer, i }]);
    await file.close();
  });
  await Promise.all(work);
  const verdict = await verifyHost(path);
  assert.deepEqual([verdict.findings, verdict.entries], [[], 60]);
});

test("the lock of a program that has died holds up nobody", async () => {
  await using tmp = await makeTmpDir("chain");
  const path = join(tmp.path, "audit.log");
  await symlink("4194304 1 another-boot", `${path}.lock`);
  await writeRun(path, 1);
  assert.equal((await verifyHost(path)).entries, 1);
});

/** Each does one thing to the lines, and says which line a finding must be near; 1-based. */
const deeds = {
  change: (lines: string[], at: number) =>
    lines.with(at, (lines[at] ?? "").replace("event", "evnt")),
  remove: (lines: string[], at: number) => lines.toSpliced(at, 1),
  swap: (lines: string[], at: number) =>
    lines.with(at, lines[at + 1] ?? "").with(at + 1, lines[at] ?? ""),
  repeat: (lines: string[], at: number) => lines.toSpliced(at, 0, lines[at] ?? ""),
  insert: (lines: string[], at: number) => lines.toSpliced(at + 1, 0, '{"event":"made up"}'),
};

test("whatever is done to a log is found, and where", async () => {
  await using tmp = await makeTmpDir("chain");
  const path = join(tmp.path, "audit.log");
  const count = 12;
  await writeRun(path, count);
  const whole = await linesOf(path);
  const deed = fc.constantFrom(...Object.values(deeds));
  const place = fc.integer({ min: 1, max: count - 2 });
  await fc.assert(
    fc.asyncProperty(deed, place, async (change, at) => {
      await put(path, change(whole, at));
      const { findings } = await verifyHost(path);
      assert.ok(findings.length > 0);
      for (const { line, file } of findings) {
        assert.equal(file, path);
        assert.ok(Math.abs(line - (at + 1)) <= 2, `line ${line} for what was done to ${at + 1}`);
      }
    }),
    { numRuns: 60 },
  );
});

test("the last entries cannot be taken away, nor the last one changed", async () => {
  await using tmp = await makeTmpDir("chain");
  const path = join(tmp.path, "audit.log");
  await writeRun(path, 5);
  const whole = await linesOf(path);
  await put(path, whole.slice(0, 3));
  const [missing] = (await verifyHost(path)).findings;
  assert.deepEqual([missing?.line, missing?.problem], [3, "entries 4 to 5 are missing at the end"]);
  await put(path, deeds.change(whole, 4));
  assert.match((await verifyHost(path)).findings[0]?.problem ?? "", /entry 5 is not the one/);
  // Who goes on writing does not heal it.
  await put(path, whole.slice(0, 3));
  await writeRun(path, 1);
  assert.match((await verifyHost(path)).findings[0]?.problem ?? "", /entries 4 to 5 are missing/);
});

test("lines of a version without a chain come first and are counted", async () => {
  await using tmp = await makeTmpDir("chain");
  const path = join(tmp.path, "audit.log");
  await put(path, ['{"method":"GET"}', '{"method":"PUT"}']);
  await writeRun(path, 2);
  const { findings, unchained, first } = await verifyHost(path);
  assert.deepEqual([findings, unchained, first], [[], 2, 1]);
});

test("a line that a crash cut off is told, and what comes after it is whole", async () => {
  await using tmp = await makeTmpDir("chain");
  const path = join(tmp.path, "audit.log");
  await writeRun(path, 3);
  await appendFile(path, '{"event":9,"te');
  await writeRun(path, 2);
  const { findings, entries } = await verifyHost(path);
  assert.deepEqual(
    findings.map(({ line }) => line),
    [4],
  );
  assert.equal(entries, 5);
});

test("a log that was emptied has lost what it held", async () => {
  await using tmp = await makeTmpDir("chain");
  const path = join(tmp.path, "audit.log");
  await writeRun(path, 3);
  await truncate(path);
  await writeRun(path, 1);
  const { first, last, findings } = await verifyHost(path);
  // Older files may have been deleted by rotation: the numbers say so, it is no fault of the rest.
  assert.deepEqual([first, last?.seq, findings], [4, 4, []]);
});
