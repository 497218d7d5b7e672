import assert from "node:assert/strict";
import { join } from "node:path";
import { runChild } from "../runner/child.ts";
import { repoRoot } from "./baked.ts";

/** What a person at a terminal does; see terminal.py. */
export type TerminalStep =
  | { readonly expect: string }
  | { readonly type: string }
  | { readonly signal: number }
  | { readonly resize: readonly [rows: number, cols: number] };

export interface TerminalEnd {
  readonly shown: string;
  readonly code: number;
  /** Whether the terminal's modes are what they were before. */
  readonly restored: boolean;
}

const deadlineMs = 90_000;

/** Runs a program on a terminal of 30 rows and 100 columns. Fails the test when a step does. */
export async function atTerminal(
  argv: readonly string[],
  steps: readonly TerminalStep[],
  env: NodeJS.ProcessEnv,
): Promise<TerminalEnd> {
  const lines: string[] = [];
  const errors: string[] = [];
  const script = join(repoRoot, "test/helpers/terminal.py");
  const end = await runChild(["python3", script, JSON.stringify(steps), ...argv], {
    cwd: "/",
    env: { ...process.env, ...env },
    deadlineMs,
    onStdoutLine: (line) => lines.push(line),
    onStderrLine: (line) => errors.push(line),
  });
  assert.equal(end.code, 0, errors.join("\n"));
  return JSON.parse(lines.join("")) as TerminalEnd;
}
