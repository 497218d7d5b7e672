import assert from "node:assert/strict";
import { cpSync, mkdirSync, writeFileSync } from "node:fs";
import { basename, dirname, extname, join } from "node:path";
import { test } from "node:test";
import { makeTmpDir } from "../helpers/tmp.ts";
import { runChild } from "../runner/child.ts";
import { repoRoot, sourceFiles } from "./files.ts";

/** Runs the linter with our rules over one file and returns what it said. */
async function lint(path: string, text: string): Promise<string> {
  await using dir = await makeTmpDir("layers");
  cpSync(join(repoRoot, "biome.json"), join(dir.path, "biome.json"));
  mkdirSync(join(dir.path, dirname(path)), { recursive: true });
  writeFileSync(join(dir.path, path), text);
  let output = "";
  const keep = (line: string): void => {
    output += `${line}\n`;
  };
  const biome = join(repoRoot, "node_modules/.bin/biome");
  await runChild([biome, "lint", "--vcs-enabled=false", "--reporter=github", path], {
    cwd: dir.path,
    env: process.env,
    deadlineMs: 60_000,
    onStdoutLine: keep,
    onStderrLine: keep,
  });
  return output;
}

const host = "packages/host/src";
const use = (source: string): string => `import { x } from "${source}";\nexport const y = x;\n`;

const forbidden: readonly (readonly [string, string, string])[] = [
  [`${host}/lib/a.ts`, "../linux/proc.ts", "lib/ has no domain words"],
  [`${host}/engine/qemu/a.ts`, "../../store/layout.ts", "never knows the store"],
  [`${host}/store/a.ts`, "../engine/engine.ts", "never knows an engine"],
  [`${host}/agent/a.ts`, "../engine/engine.ts", "knows no engine"],
  [`${host}/fork/a.ts`, "../daemon/server.ts", "the domain"],
  [`${host}/doctor/a.ts`, "../daemon/server.ts", "never knows HTTP"],
  [`${host}/fork/a.ts`, "fastify", "Only daemon/ knows HTTP"],
  [`${host}/daemon/routes/a.ts`, "../../cli/output.ts", "the other door"],
  [`${host}/cli/commands/a.ts`, "../../engine/engine.ts", "never directly"],
  [`${host}/remote/a.ts`, "../store/layout.ts", "never knows what is in them"],
  [`${host}/store/a.ts`, "../remote/http.ts", "never knows an engine"],
  [`${host}/store/a.ts`, "node:child_process", "Programs are started by"],
  ["packages/api/src/a.ts", "node:fs", "it does no I/O"],
  ["packages/sdk/src/a.ts", "@forkd/host/lib/log.ts", "not the daemon"],
];

for (const [path, source, reason] of forbidden) {
  test(`the linter stops ${path} from importing ${source}`, async () => {
    assert.ok((await lint(path, use(source))).includes(reason));
  });
}

test("the linter lets the domain import every layer below it", async () => {
  for (const layer of ["lib/log", "linux/proc", "engine/engine", "store/layout", "agent/guest"]) {
    const said = await lint(`${host}/fork/a.ts`, use(`../${layer}.ts`));
    assert.ok(!said.includes("noRestrictedImports"), said);
  }
});

test("the linter stops a promise that nobody waits for", async () => {
  const said = await lint(
    `${host}/fork/a.ts`,
    "export function f(): void {\n  Promise.resolve(1);\n}\n",
  );
  assert.ok(said.includes("noFloatingPromises"), said);
});

/** Which sources each source of C includes headers of, by the names that both share with theirs. */
function includesOf(files: readonly { path: string; text: string }[]): Map<string, Set<string>> {
  const found = new Map<string, Set<string>>();
  for (const { path, text } of files) {
    const name = basename(path, extname(path));
    const used = found.get(name) ?? new Set();
    for (const [, header] of text.matchAll(/^#include "([\w-]+)\.h"/gm)) {
      if (header !== undefined && header !== name) used.add(header);
    }
    found.set(name, used);
  }
  return found;
}

/** The sources in a loop: what is left once those that need none, or that none needs, are out. */
function circlesOf(includes: ReadonlyMap<string, ReadonlySet<string>>): string[] {
  let left = [...includes.keys()];
  for (let before = -1; before !== left.length; ) {
    before = left.length;
    const needed = new Set(left.flatMap((name) => [...(includes.get(name) ?? [])]));
    const stays = new Set(left);
    left = left.filter(
      (name) => needed.has(name) && [...(includes.get(name) ?? [])].some((n) => stays.has(n)),
    );
  }
  return left.sort();
}

test("no two files of the guest agent include each other, directly or by others", () => {
  const guest = sourceFiles().filter(({ path }) => /^guest\/src\/.*\.[ch]$/.test(path));
  assert.ok(guest.length > 50, "the guest agent is elsewhere now");
  assert.deepEqual(circlesOf(includesOf(guest)), []);
});

test("a circle of includes is found, and what hangs on it is not", () => {
  const files = [
    { path: "main.c", text: '#include "a.h"\n' },
    { path: "a.c", text: '#include "a.h"\n#include "b.h"\n' },
    { path: "b.h", text: '#include "c.h"\n' },
    { path: "c.c", text: '#include <stdio.h>\n#include "a.h"\n#include "d.h"\n' },
    { path: "d.c", text: '#include "d.h"\n' },
  ];
  assert.deepEqual(circlesOf(includesOf(files)), ["a", "b", "c"]);
});
