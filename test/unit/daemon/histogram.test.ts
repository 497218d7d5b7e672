import assert from "node:assert/strict";
import { test } from "node:test";
import { renderMetrics } from "@forkd/host/daemon/metrics/exposition.ts";
import { Counter, Histogram } from "@forkd/host/daemon/metrics/histogram.ts";
import fc from "fast-check";

const buckets = [0.01, 0.1, 1];
const plan = { name: "t_seconds", help: "A test.", buckets };

test("each value counts in every bucket that holds it", () => {
  const histogram = new Histogram(plan);
  for (const ms of [5, 10, 11, 999, 1000, 5000]) histogram.observe(ms, { phase: "x" });
  assert.equal(
    renderMetrics([histogram.collect()]),
    [
      "# HELP t_seconds A test.",
      "# TYPE t_seconds histogram",
      't_seconds_bucket{phase="x",le="0.01"} 2',
      't_seconds_bucket{phase="x",le="0.1"} 3',
      't_seconds_bucket{phase="x",le="1"} 5',
      't_seconds_bucket{phase="x",le="+Inf"} 6',
      't_seconds_sum{phase="x"} 7.025',
      't_seconds_count{phase="x"} 6',
      "",
    ].join("\n"),
  );
});

test("buckets never fall, and the last one and the count are all values", () => {
  const values = fc.array(fc.double({ min: -10, max: 1e7, noNaN: true }), { maxLength: 50 });
  fc.assert(
    fc.property(values, (all) => {
      const histogram = new Histogram(plan);
      for (const ms of all) histogram.observe(ms);
      const { samples } = histogram.collect();
      const counts = samples.filter(({ suffix }) => suffix === "_bucket").map(({ value }) => value);
      assert.deepEqual(
        counts,
        counts.toSorted((a, b) => a - b),
      );
      const count = samples.find(({ suffix }) => suffix === "_count")?.value ?? 0;
      assert.equal(count, all.length);
      if (all.length > 0) assert.equal(counts.at(-1), all.length);
    }),
  );
});

test("sets of labels are bounded, whatever makes them", () => {
  const counter = new Counter("t_total", "A test.");
  const histogram = new Histogram(plan);
  for (let i = 0; i < 5000; i += 1) {
    counter.add({ i: String(i) });
    histogram.observe(1, { i: String(i) });
  }
  assert.equal(counter.collect().samples.length, 200);
  const counts = histogram.collect().samples.filter(({ suffix }) => suffix === "_count");
  assert.equal(counts.length, 200);
});

test("label values are escaped as the format has it", () => {
  const counter = new Counter("t_total", "A test.");
  counter.add({ text: 'a"b\\c\nd' });
  assert.ok(renderMetrics([counter.collect()]).includes('t_total{text="a\\"b\\\\c\\nd"} 1\n'));
});
