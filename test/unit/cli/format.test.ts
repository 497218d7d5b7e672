import assert from "node:assert/strict";
import { test } from "node:test";
import { formatAge, formatBytes, formatMs, summarize } from "@forkd/host/cli/format.ts";
import { renderTable } from "@forkd/host/cli/table.ts";

test("bytes are shown in the largest unit that leaves a whole part", () => {
  const shown = [0, 1023, 1024, 1536, 100 * 1024, 512 * 1024 ** 2, 3 * 1024 ** 5].map(formatBytes);
  assert.deepEqual(shown, [
    "0 B",
    "1023 B",
    "1.0 KiB",
    "1.5 KiB",
    "100 KiB",
    "512 MiB",
    "3072 TiB",
  ]);
});

test("short times have a decimal, long ones have none", () => {
  assert.deepEqual([0.04, 12.34, 99.96, 1234.5].map(formatMs), ["0.0", "12.3", "100.0", "1235"]);
});

test("an age is in its largest unit, and never negative", () => {
  const ages = [-5, 0, 59, 60, 3600, 90_000].map((seconds) => formatAge(1_000, 1_000 + seconds));
  assert.deepEqual(ages, ["now", "now", "59 s ago", "1 min ago", "1 h ago", "1 d ago"]);
});

test("percentiles are nearest ranks", () => {
  const values = Array.from({ length: 100 }, (_, index) => 100 - index);
  assert.deepEqual(summarize(values), { p50: 50, p95: 95, max: 100 });
  assert.deepEqual(summarize([7]), { p50: 7, p95: 7, max: 7 });
  assert.equal(summarize([]), undefined);
});

const columns = [
  { title: "TAG", cell: (row: readonly string[]) => row[0] ?? "" },
  { title: "SIZE", align: "right", cell: (row: readonly string[]) => row[1] ?? "" },
] as const;

test("a table is aligned and has no blanks at its ends of lines", () => {
  const rows = [
    ["a", "1 B"],
    ["longer", "10 MiB"],
  ];
  assert.deepEqual(renderTable(columns, rows), [
    "TAG       SIZE",
    "a          1 B",
    "longer  10 MiB",
  ]);
  assert.deepEqual(renderTable(columns, []), ["TAG  SIZE"]);
});

test("a name from outside cannot steer the terminal", () => {
  const [, line] = renderTable(columns, [["\u001b[2Jx\ny", "1"]]);
  assert.equal(line, "?[2Jx?y     1");
});
