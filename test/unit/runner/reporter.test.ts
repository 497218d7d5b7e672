import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { makeTmpDir } from "../../helpers/tmp.ts";
import { runChild } from "../../runner/child.ts";
import type { ReportLine, TestLine } from "../../runner/reporter.ts";

const reporter = join(import.meta.dirname, "../../runner/reporter.ts");

const flags = ["--test-force-exit", "--test-timeout=1500"];

/** Runs one test file through `node --test` with our reporter. */
async function report(source: string, ...more: readonly string[]): Promise<TestLine[]> {
  await using dir = await makeTmpDir("reporter");
  const file = join(dir.path, "sample.test.mjs");
  writeFileSync(file, `import { describe, before, test } from "node:test";\n${source}\n`);
  const lines: ReportLine[] = [];
  // Inside a test, node --test would think that it is one of its own children.
  const { NODE_TEST_CONTEXT: _, ...env } = process.env;
  const words = [...more, "--test", ...flags, `--test-reporter=${reporter}`, file];
  await runChild([process.execPath, ...words], {
    cwd: dir.path,
    env,
    deadlineMs: 20_000,
    // The other end is our own reporter, so the shape is known.
    onStdoutLine: (line) => lines.push(JSON.parse(line) as ReportLine),
    onStderrLine: () => undefined,
  });
  return lines.filter((line) => line.kind === "test");
}

const outcomes = (lines: readonly TestLine[]): string[] => lines.map(({ outcome }) => outcome);

test("passes, failures and skips are told apart, in suites too", async () => {
  const lines = await report(`
    test("good", () => {});
    describe("suite", () => {
      test("bad", () => { throw new Error("boom"); });
      test("left out", { skip: "needs a moon" }, () => {});
    });`);
  assert.deepEqual(outcomes(lines), ["passed", "failed", "skipped"]);
  assert.match(lines[1]?.reason ?? "", /boom/);
  assert.equal(lines[2]?.reason, "needs a moon");
});

test("a suite that is skipped is one skip, with its reason", async () => {
  const lines = await report(`
    describe("whole", { skip: "needs a sun" }, () => {
      test("good", () => {});
      test("better", () => {});
    });`);
  assert.deepEqual(
    lines.map(({ outcome, name, reason }) => [outcome, name, reason]),
    [["skipped", "whole", "needs a sun"]],
  );
});

test("a file that cannot be loaded is one failure", async () => {
  const lines = await report(`import "./not-there.mjs";`);
  assert.deepEqual(outcomes(lines), ["failed"]);
});

test("a file that exits early is a failure", async () => {
  const lines = await report(`test("never", async () => { process.exit(3); });`);
  assert.ok(outcomes(lines).includes("failed"));
});

test("a file without tests gives nothing", async () => {
  assert.deepEqual(await report("export {};"), []);
});

test("a test that hangs fails at the deadline", async () => {
  const lines = await report(`test("hangs", () => new Promise(() => setInterval(() => {}, 1e6)));`);
  assert.ok(outcomes(lines).includes("failed"));
});

test("a hook that fails makes a failure", async () => {
  const lines = await report(`
    describe("suite", () => {
      before(() => { throw new Error("no ground"); });
      test("inside", () => {});
    });`);
  assert.ok(lines.some((line) => line.outcome === "failed" && /no ground/.test(line.reason)));
});

test("Node hands options of V8 on to the processes of the files, as test/helpers/system-node needs", async () => {
  const source = `test("has them", { skip: globalThis.gc ? false : "has none" }, () => {});`;
  assert.deepEqual(outcomes(await report(source)), ["skipped"]);
  assert.deepEqual(outcomes(await report(source, "--expose-gc")), ["passed"]);
});
