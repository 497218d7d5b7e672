import assert from "node:assert/strict";
import { test } from "node:test";
import { compare } from "../../../bench/spawn-result.ts";
import { median, percentile, ratio, spread } from "../../../bench/stats.ts";
import { formatTable } from "../../../bench/table.ts";
import { isRightAnswer } from "../../../bench/task.ts";

test("a percentile is a value that was measured", () => {
  const values = [50, 10, 40, 20, 30];
  assert.equal(percentile(values, 0.5), 30);
  assert.equal(percentile(values, 0.95), 50);
  assert.equal(percentile(values, 0), 10);
  assert.equal(percentile([7], 0.99), 7);
  assert.deepEqual(values, [50, 10, 40, 20, 30], "the input is left alone");
  assert.throws(() => percentile([], 0.5), RangeError);
});

test("p99 of a hundred values is the 99th, not the largest", () => {
  const values = Array.from({ length: 100 }, (_, i) => i + 1);
  assert.equal(percentile(values, 0.99), 99);
  assert.equal(spread(values)?.max, 100);
  assert.equal(spread(values)?.mean, 50.5);
});

test("nothing measured gives nothing, not zero", () => {
  assert.equal(spread([]), null);
  assert.equal(median([]), null);
  assert.equal(ratio(null, 1), null);
  assert.equal(ratio(1, 0), null);
  assert.equal(ratio(6, 2), 3);
});

test("an answer is right however its numbers are written, and wrong otherwise", () => {
  assert.ok(isRightAnswer("[0.0, 0.0, 0.0, 0.0, 0.0]\n"));
  assert.ok(isRightAnswer("[0,0,0,0,0]"));
  assert.ok(!isRightAnswer("[0,0,0,0]"));
  assert.ok(!isRightAnswer("Traceback"));
});

test("a table aligns numbers to the right and text to the left", () => {
  const text = formatTable(
    ["what", "ms"],
    [
      ["a", "1.50"],
      ["long name", "10.25"],
    ],
  );
  assert.equal(text, ["what       ms", "a           1.50", "long name  10.25"].join("\n"));
});

const nothing = {
  answer_ms: null,
  restored_ms: null,
  identity_ms: null,
  eval_ms: null,
  unique_bytes: null,
  proportional_bytes: null,
  idle_core_percent: null,
  each_ms: null,
  failures: [],
  concurrency: 2,
};
const round = (total_ms: number, verified = 10) => ({ count: 10, verified, total_ms, ...nothing });
const boots = (count: number, total_ms: number) => ({
  count,
  booted: count,
  concurrency: 2,
  warm_ms: null,
  total_ms,
  failures: [],
});

test("ratios compare medians, and cold boots by the rate that was measured", () => {
  const sizes = [
    { count: 10, forks: [round(90), round(100), round(500)], containers: [round(200)] },
  ];
  const [row] = compare(sizes, { single: boots(1, 1000), several: boots(4, 2000) });
  assert.equal(row?.forks_total_ms, 100);
  assert.equal(row?.containers_to_forks, 2);
  assert.equal(row?.cold_boots_total_ms, 5000);
  assert.equal(row?.cold_boots_to_forks, 50);
  assert.equal(row?.success_percent, 100);
});

test("a round in which a child failed counts against success and not for speed", () => {
  const sizes = [{ count: 10, forks: [round(10, 5), round(100)], containers: [] }];
  const [row] = compare(sizes, { single: boots(1, 1000), several: boots(0, 0) });
  assert.equal(row?.success_percent, 75);
  assert.equal(row?.forks_total_ms, 100);
  assert.equal(row?.containers_to_forks, null);
  assert.equal(row?.cold_boots_to_forks, null);
});
