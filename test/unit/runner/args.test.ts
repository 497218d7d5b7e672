import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { test } from "node:test";

const repoRoot = join(import.meta.dirname, "../../..");
const programs = ["run", "firecracker", "kvm", "load", "soak", "runbook", "exec-crowd"];

interface Ran {
  /** Null when it has not ended by itself. */
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

function runs(...words: readonly string[]): Ran {
  const program = [join(repoRoot, "scripts/node"), ...words] as const;
  const { status, stdout, stderr } = spawnSync(program[0], program.slice(1), {
    cwd: repoRoot,
    encoding: "utf8",
    timeout: 30_000,
    killSignal: "SIGKILL",
  });
  return { code: status, out: stdout, err: stderr };
}

for (const name of programs) {
  test(`test/${name}.ts says how it is called to whoever calls it otherwise`, () => {
    const { code, err } = runs(`test/${name}.ts`, "--wrong");
    assert.equal(code, 2, err);
    assert.match(err, /^error: Unknown option '--wrong'.*\nusage: npm \S.*\n$/);
  });
}

test("to be asked for help is no error", () => {
  const { out, ...rest } = runs("test/run.ts", "--help");
  assert.deepEqual(rest, { code: 0, err: "" });
  assert.match(out, /^usage: npm \S.*\n$/);
});

test("a release says so too", () => {
  const { code, err } = runs("scripts/release.ts", "--wrong");
  assert.equal(code, 2, err);
  assert.match(err, /^error: Unknown option '--wrong'.*\nusage: scripts\/node \S.*\n$/);
});

test("a benchmark says so too", () => {
  const help = runs("bench/main.ts", "spawn", "--help");
  assert.deepEqual([help.code, help.err], [0, ""]);
  assert.match(help.out, /^usage: npm run bench -- \S.*\n$/);
  const { code, err } = runs("bench/main.ts", "spawn", "--wrong");
  assert.equal(code, 2, err);
  assert.match(err, /^error: Unknown option '--wrong'.*\nusage: npm run bench -- \S.*\n$/);
});
