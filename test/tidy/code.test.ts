import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { test } from "node:test";
import { type Exceptions, processStarters, treeRemovers } from "./allowed.ts";
import { codeFiles, repoRoot, type SourceFile } from "./files.ts";

const typescript = (): readonly SourceFile[] =>
  codeFiles().filter(
    (file) => /\.(ts|mjs)$/.test(file.path) && !file.path.startsWith("test/tidy/"),
  );

/** What users run; tests start programs and remove their own directories as they need. */
const product = (): readonly SourceFile[] =>
  typescript().filter((file) => !file.path.startsWith("test/"));

function assertOnlyListed(found: readonly SourceFile[], listed: Exceptions): void {
  const unlisted = found.map((file) => file.path).filter((path) => listed[path] === undefined);
  assert.deepEqual(unlisted, [], "these files are not in test/tidy/allowed.ts");
  const needless = Object.keys(listed).filter((path) => found.every((f) => f.path !== path));
  assert.deepEqual(needless, [], "these exceptions are no longer needed");
}

test("programs are started in few, listed files", () => {
  const starters = product().filter((file) =>
    /from "(node:)?child_process"|import\("node:child_process"\)/.test(file.text),
  );
  assertOnlyListed(starters, processStarters);
});

test("directories are removed with their contents in few, listed files", () => {
  const removers = product().filter((file) =>
    /\brm(Sync)?\([^;]*?recursive: true/s.test(file.text),
  );
  assertOnlyListed(removers, treeRemovers);
});

/** Files that something outside the sources starts. */
const entries = [
  /^packages\/[a-z]+\/src\/index\.ts$/,
  /^packages\/host\/src\/(cli|daemon)\/main\.ts$/,
  /^packages\/mcp\/src\/main\.ts$/,
];

function importsOf(file: SourceFile): string[] {
  const pattern = /(?:from|import|import\(|new URL\()\s*["`](\.[^"`]+)["`]/g;
  return [...file.text.matchAll(pattern)].map((match) =>
    // A worker's file ends as its parent's does: .ts in the sources, .js when built.
    normalize(join(dirname(file.path), (match[1] ?? "").replace("${extension}", "ts"))),
  );
}

function hostImportsOf(file: SourceFile): string[] {
  const pattern = /"@forkd\/host\/([^"]+)"/g;
  return [...file.text.matchAll(pattern)].map((match) => `packages/host/src/${match[1]}`);
}

test("every source file is used by a source file", () => {
  const users = typescript().filter((file) => !/^test\//.test(file.path));
  const used = new Set(users.flatMap((file) => [...importsOf(file), ...hostImportsOf(file)]));
  const unused = typescript()
    .map((file) => file.path)
    .filter((path) => /^packages\/[a-z]+\/src\//.test(path))
    .filter((path) => !used.has(path) && !entries.some((entry) => entry.test(path)));
  assert.deepEqual(unused, []);
});

test("every shell script stops at the first error and is executable", () => {
  const scripts = codeFiles().filter((file) => /^#!\S*\s?(ba)?sh\b|^#!\S*\/sh\b/.test(file.text));
  assert.ok(scripts.length >= 3);
  const careless = scripts.filter(
    (file) => !/^set -[a-z]*e[a-z]*u|^set -[a-z]*u[a-z]*e/m.test(file.text),
  );
  assert.deepEqual(
    careless.map((file) => file.path),
    [],
  );
});

interface Lock {
  readonly packages: Readonly<Record<string, { readonly hasInstallScript?: boolean }>>;
}

test("no dependency runs a script when it is installed", () => {
  // The lock file is npm's own, so its shape is known.
  const lock = JSON.parse(readFileSync(join(repoRoot, "package-lock.json"), "utf8")) as Lock;
  const packages = Object.entries(lock.packages);
  assert.ok(packages.length > 10);
  const scripted = packages.filter(([, entry]) => entry.hasInstallScript === true);
  assert.deepEqual(
    scripted.map(([name]) => name),
    [],
  );
});

interface Manifest {
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly devDependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

test("dependencies are pinned to one version", () => {
  const dirs = [".", ...["api", "sdk", "host", "mcp"].map((name) => `packages/${name}`)];
  const loose = dirs.flatMap((dir) => {
    // Our own files; the linter checks their form.
    const manifest = JSON.parse(
      readFileSync(join(repoRoot, dir, "package.json"), "utf8"),
    ) as Manifest;
    const all = {
      ...manifest.dependencies,
      ...manifest.devDependencies,
      ...manifest.optionalDependencies,
    };
    return Object.entries(all)
      .filter(([, version]) => !/^\d+\.\d+\.\d+$/.test(version))
      .map(([name, version]) => `${dir}: ${name} ${version}`);
  });
  assert.deepEqual(loose, []);
});
