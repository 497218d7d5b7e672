import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { errorTable, limits } from "@forkd/api";
import { runChild } from "../runner/child.ts";
import { markdownFiles, repoRoot, type SourceFile } from "./files.ts";

/** The lines of a document without its code blocks. */
function proseOf(file: SourceFile): string[] {
  let fenced = false;
  return file.lines.filter((line) => {
    if (line.trimStart().startsWith("```")) {
      fenced = !fenced;
      return false;
    }
    return !fenced;
  });
}

const anchorOf = (heading: string): string =>
  heading
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N}\s_-]/gu, "")
    .trim()
    .replaceAll(/\s/g, "-");

function anchorsIn(path: string): Set<string> {
  const headings = readFileSync(path, "utf8").matchAll(/^#+ (.+)$/gm);
  return new Set([...headings].map((match) => anchorOf(match[1] ?? "")));
}

function brokenLinks(file: SourceFile): string[] {
  const links = [
    ...proseOf(file)
      .join("\n")
      .matchAll(/\[[^\]]*\]\(([^)\s]+)\)/g),
  ];
  return links
    .map((match) => match[1] ?? "")
    .filter((link) => !/^(https?:|mailto:)/.test(link))
    .filter((link) => {
      const [path = "", anchor] = link.split("#", 2);
      const target =
        path === "" ? join(repoRoot, file.path) : join(repoRoot, dirname(file.path), path);
      if (!existsSync(target)) return true;
      return anchor !== undefined && !anchorsIn(target).has(anchor);
    })
    .map((link) => `${file.path}: ${link}`);
}

test("every link of a document resolves", () => {
  assert.deepEqual(markdownFiles().flatMap(brokenLinks), []);
});

test("every document has one title, on its first line", () => {
  const fragments = markdownFiles().filter((file) => !file.path.startsWith("changelog/"));
  const wrong = fragments.filter((file) => {
    const titles = proseOf(file).filter((line) => line.startsWith("# "));
    return titles.length !== 1 || !file.lines[0]?.startsWith("# ");
  });
  assert.deepEqual(
    wrong.map((file) => file.path),
    [],
  );
});

test("docs/index.md leads to every document", () => {
  const index = readFileSync(join(repoRoot, "docs/index.md"), "utf8");
  const names = markdownFiles()
    .map((file) => file.path)
    .filter((path) => path.startsWith("docs/") && path !== "docs/index.md")
    .map((path) => path.slice("docs/".length));
  assert.deepEqual(
    names.filter((name) => !index.includes(`(${name})`)),
    [],
  );
});

const generator = join(repoRoot, "scripts/docs.ts");
const withoutGenerator = existsSync(generator) ? false : "scripts/docs.ts does not exist yet";

test("the generated documents are fresh", { skip: withoutGenerator }, async () => {
  let output = "";
  const keep = (line: string): void => {
    output += `${line}\n`;
  };
  const end = await runChild([join(repoRoot, "scripts/node"), generator, "--check"], {
    cwd: repoRoot,
    env: process.env,
    deadlineMs: 60_000,
    onStdoutLine: keep,
    onStderrLine: keep,
  });
  assert.equal(end.code, 0, output);
});

for (const [document, names] of [
  ["docs/errors.md", Object.keys(errorTable)],
  ["docs/limits.md", Object.keys(limits)],
] as const) {
  test(`${document} has every entry`, { skip: withoutGenerator }, () => {
    const text = readFileSync(join(repoRoot, document), "utf8");
    assert.deepEqual(
      names.filter((name) => !text.includes(`\`${name}\``)),
      [],
    );
  });
}

test("every changelog fragment says what kind of change it is", () => {
  const dir = join(repoRoot, "changelog/unreleased");
  const names = readdirSync(dir);
  assert.ok(names.length > 0, "changelog/unreleased/ is empty");
  for (const name of names) {
    assert.match(name, /^[a-z0-9-]+\.md$/);
    const [first = ""] = readFileSync(join(dir, name), "utf8").split("\n");
    assert.match(first, /^(Added|Changed|Fixed|Removed|Security): \S.*[^.]$/, name);
  }
});
