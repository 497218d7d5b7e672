import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { test } from "node:test";

const repoRoot = join(import.meta.dirname, "../../..");
const programs = ["run", "firecracker", "kvm", "load", "soak", "runbook"];

function runs(...words: readonly string[]): { readonly code: number | null; readonly err: string } {
  const program = [join(repoRoot, "scripts/node"), ...words] as const;
  const { status, stderr } = spawnSync(program[0], program.slice(1), {
    cwd: repoRoot,
    encoding: "utf8",
  });
  return { code: status, err: stderr };
}

for (const name of programs) {
  test(`test/${name}.ts says how it is called to whoever calls it otherwise`, () => {
    const { code, err } = runs(`test/${name}.ts`, "--wrong");
    assert.equal(code, 2, err);
    assert.match(err, /^error: Unknown option '--wrong'.*\nusage: npm \S.*\n$/);
  });
}

test("to be asked for help is no error", () => {
  assert.deepEqual(runs("test/run.ts", "--help"), { code: 0, err: "" });
});

test("a benchmark says so too", () => {
  const { code, err } = runs("bench/main.ts", "spawn", "--wrong");
  assert.equal(code, 2, err);
  assert.match(err, /^error: Unknown option '--wrong'.*\nusage: npm run bench -- \S.*\n$/);
});
