import assert from "node:assert/strict";
import { test } from "node:test";
import { longFiles } from "./allowed.ts";
import { codeFiles, findLines, markdownFiles, sourceFiles } from "./files.ts";

const columnsMax = 100;
/** Prose may be a little wider than code. */
const proseColumnsMax = 110;
const fileLinesMax = 400;

/** A Markdown row or a line with one long address cannot be broken. */
const unbreakable = /^\s*(\||\[[^\]]+\]:|https?:\S+$)|\]\([^)]{40,}\)/;

/** The formatter breaks what it can; one long literal stays, and comments are ours to break. */
function hasLongLiteral(line: string, path: string): boolean {
  if (/^\s*(\/?\*|\/\/|#)/.test(line)) return false;
  if (path.endsWith(".ts")) return /["'`]/.test(line);
  const shortened = line.replaceAll(/"((?:[^"\\]|\\.)*)"/g, (_, text: string) => text.slice(0, 20));
  return shortened.length <= columnsMax;
}

/** A line that is one regular expression cannot be broken either. */
const onlyPattern = /^\s*((const )?\w+( =|:) )?\/.+\/[a-z]*[,;]?$/;

test("there are files to look at", () => {
  assert.ok(codeFiles().length > 20, `only ${codeFiles().length} code files were found`);
  assert.ok(markdownFiles().length > 3, `only ${markdownFiles().length} documents were found`);
});

test("no line is over 100 columns", () => {
  const tooLong = (line: string, max = columnsMax): boolean => [...line].length > max;
  const inCode = findLines(codeFiles(), (line, { path }) => {
    return tooLong(line) && !onlyPattern.test(line) && !hasLongLiteral(line, path);
  });
  assert.deepEqual(inCode, []);
  const inMarkdown = (line: string): boolean =>
    tooLong(line, proseColumnsMax) && !unbreakable.test(line);
  const written = markdownFiles().filter((file) => !/^.*\n\nGenerated /.test(file.text));
  assert.deepEqual(findLines(written, inMarkdown), []);
});

test("no code file is over 400 lines, unless the reason is listed", () => {
  const long = codeFiles().filter((file) => file.lines.length > fileLinesMax);
  const unlisted = long.filter((file) => longFiles[file.path] === undefined);
  assert.deepEqual(
    unlisted.map((file) => `${file.path}: ${file.lines.length} lines`),
    [],
  );
  const needless = Object.keys(longFiles).filter((path) => long.every((f) => f.path !== path));
  assert.deepEqual(needless, [], "these exceptions are no longer needed");
});

test("no file has trailing blanks, tabs outside Makefiles and C, or a missing last newline", () => {
  const trailing = findLines([...codeFiles(), ...markdownFiles()], (line) => /[ \t]+$/.test(line));
  assert.deepEqual(trailing, []);
  const tabbed = codeFiles().filter((file) => !/Makefile$|\.[ch]$/.test(file.path));
  assert.deepEqual(
    findLines(tabbed, (line) => line.startsWith("\t")),
    [],
  );
  const unended = codeFiles().filter((file) => file.text !== "" && !file.text.endsWith("\n"));
  assert.deepEqual(
    unended.map((file) => file.path),
    [],
  );
});

test("every suppression says why", () => {
  const marks = /biome-ignore|@ts-expect-error|shellcheck disable|NOLINT|noqa|type: ignore/;
  const reasoned =
    /biome-ignore[^:]*: \S.{9,}|@ts-expect-error \S.{9,}|shellcheck disable=\S+ # \S.{9,}/;
  const bare = findLines(codeFiles(), (line, file) => {
    if (file.path.startsWith("test/tidy/")) return false;
    return marks.test(line) && !reasoned.test(line);
  });
  assert.deepEqual(bare, []);
});

test("no file names a path of the machine that it was written on", () => {
  // The patterns are put together here so that this file does not match itself.
  const machine = new RegExp(
    ["/wo" + "rk/(main|shared)", "bash_" + "jobs", "/root/\\.py" + "env"].join("|"),
  );
  assert.deepEqual(
    findLines(sourceFiles(), (line) => machine.test(line)),
    [],
  );
});

test("no work is left marked in the code", () => {
  const mark = new RegExp(`\\b(TO${"DO"}|FIX${"ME"}|XX${"X"})\\b`);
  const left = findLines(codeFiles(), (line, file) => {
    return mark.test(line) && !file.path.startsWith("test/runner/") && !/mkdtemp|mktemp/.test(line);
  });
  assert.deepEqual(left, []);
});
