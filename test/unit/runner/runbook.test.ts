import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { isPrinted, runbookOf } from "../../helpers/runbook.ts";
import { repoRoot } from "../../tidy/files.ts";

test("commands and what they print are found under their headings", () => {
  const text =
    "# A\n```console\n$ one\n$ two\nx\n...\n```\n```sh\nthree\n```\n## B\n```console\n$ four\n```\n";
  assert.deepEqual(runbookOf(text), [
    {
      heading: "A",
      commands: [
        { command: "one", prints: [] },
        { command: "two", prints: ["x", "..."] },
      ],
    },
    { heading: "B", commands: [{ command: "four", prints: [] }] },
  ]);
  assert.throws(() => runbookOf("```console\nx\n```\n"), /no command above x/);
});

test("output is compared line by line, with room where the runbook leaves it", () => {
  const cases: readonly [readonly string[], string, boolean][] = [
    [[], "", true],
    [[], "x\n", false],
    [["x"], "x\n", true],
    [["x"], "x\ny\n", false],
    [["a...c"], "abbbc\n", true],
    [["a...c"], "abbb\n", false],
    [["TAG ..."], "TAG      SIZE\n", true],
    [["...", "y"], "a\nb\ny\n", true],
    [["...", "y"], "y\n", true],
    [["...", "y"], "a\nb\n", false],
    [["a.c"], "abc\n", false],
  ];
  for (const [prints, output, is] of cases) {
    assert.equal(isPrinted(prints, output), is, JSON.stringify([prints, output]));
  }
});

test("the runbook names its packages by two versions", () => {
  const text = readFileSync(join(repoRoot, "docs/runbook.md"), "utf8");
  const commands = runbookOf(text).flatMap((part) => part.commands.map(({ command }) => command));
  const versions = commands.flatMap((command) => /forkd_(.+)_amd64/.exec(command)?.[1] ?? []);
  assert.equal(new Set(versions).size, 2);
});
