import { readdirSync, readFileSync } from "node:fs";
import { join, relative, resolve } from "node:path";

export const repoRoot = resolve(import.meta.dirname, "../..");

/** What git ignores, and git itself: nobody wrote these. */
const ignoredNames = new Set(["node_modules", "dist", "build", ".git", ".cache", "coverage"]);
const ignoredPaths = new Set(["bench/results", "package-lock.json", "LICENSE"]);

export interface SourceFile {
  /** Relative to the repository, with forward slashes. */
  readonly path: string;
  readonly text: string;
  readonly lines: readonly string[];
}

function walk(dir: string, found: string[]): void {
  for (const entry of readdirSync(dir, { withFileTypes: true })) {
    const path = join(dir, entry.name);
    if (ignoredNames.has(entry.name) || ignoredPaths.has(relative(repoRoot, path))) continue;
    if (entry.isDirectory()) walk(path, found);
    else if (entry.isFile() && !entry.name.endsWith(".tsbuildinfo")) found.push(path);
  }
}

function load(path: string): SourceFile {
  const text = readFileSync(path, "utf8");
  const lines = text.split("\n");
  if (lines.at(-1) === "") lines.pop();
  return { path: relative(repoRoot, path), text, lines };
}

let cached: readonly SourceFile[] | undefined;

/** Every text file that people wrote, by path. */
export function sourceFiles(): readonly SourceFile[] {
  if (cached === undefined) {
    const paths: string[] = [];
    walk(repoRoot, paths);
    cached = paths
      .sort()
      .map(load)
      .filter((file) => !file.text.includes("\0"));
  }
  return cached;
}

const codePattern =
  /\.(ts|mts|mjs|js|c|h|py|sh)$|(^|\/)Makefile$|^scripts\/node$|^bin\/|^\.ci\/run$/;

export const codeFiles = (): readonly SourceFile[] =>
  sourceFiles().filter((file) => codePattern.test(file.path));

export const markdownFiles = (): readonly SourceFile[] =>
  sourceFiles().filter((file) => file.path.endsWith(".md"));

/** `path:line: text` for each line that a check finds fault with. */
export function findLines(
  files: readonly SourceFile[],
  isBad: (line: string, file: SourceFile) => boolean,
): string[] {
  return files.flatMap((file) =>
    file.lines.flatMap((line, index) =>
      isBad(line, file) ? [`${file.path}:${index + 1}: ${line.trim().slice(0, 120)}`] : [],
    ),
  );
}
