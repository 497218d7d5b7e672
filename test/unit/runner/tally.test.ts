import assert from "node:assert/strict";
import { test } from "node:test";
import { toLine } from "../../runner/reporter.ts";
import { Collector, closingLine, exitCode, newTally } from "../../runner/tally.ts";
import { addTapLine } from "../../runner/tap.ts";

const finished = (extra: object) => ({
  name: "does it",
  nesting: 0,
  file: "/repo/test/a.test.ts",
  details: { duration_ms: 1, type: "test" },
  ...extra,
});

test("a passed, a failed and a skipped test are counted once each", () => {
  const collector = new Collector(newTally("unit"), (file) => file);
  for (const line of [
    toLine("test:pass", finished({})),
    toLine("test:fail", finished({ details: { duration_ms: 1, error: new Error("boom") } })),
    toLine("test:pass", finished({ skip: "needs qemu" })),
  ]) {
    assert.ok(line);
    collector.add(line);
  }
  assert.equal(closingLine([collector.tally]), "1 passed, 1 failed, 1 skipped");
  assert.match(collector.tally.failures[0] ?? "", /boom/);
  assert.equal(exitCode([collector.tally]), 1);
});

test("suites and files without tests are not counted", () => {
  assert.equal(toLine("test:pass", finished({ details: { duration_ms: 1, type: "suite" } })), null);
  assert.equal(toLine("test:pass", finished({ name: "/repo/test/a.test.ts" })), null);
});

test("a suite whose hook failed is counted as a failure", () => {
  const error = Object.assign(new Error("hook"), { failureType: "hookFailed" });
  const line = toLine("test:fail", finished({ details: { duration_ms: 1, type: "suite", error } }));
  assert.equal(line?.outcome, "failed");
});

test("a run in which nothing ran is a failure", () => {
  assert.equal(exitCode([newTally("unit")]), 1);
  assert.equal(closingLine([newTally("unit")]), "0 passed, 0 failed");
});

test("TAP results are counted, other lines are not", () => {
  const tally = newTally("native");
  const lines = [
    "1..4",
    "ok 1 - frames",
    "not ok 2 - bounds",
    "ok 3 - tun # SKIP no device",
    "okay",
  ];
  for (const line of lines) addTapLine(tally, "frame_test", line);
  assert.equal(closingLine([tally]), "1 passed, 1 failed, 1 skipped");
  assert.deepEqual(tally.skips, [{ name: "frame_test > tun", reason: "no device" }]);
});
