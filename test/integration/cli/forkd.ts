import { fileURLToPath } from "node:url";
import { runChild } from "../../runner/child.ts";

export interface CliEnd {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

export interface CliOptions {
  readonly env?: Readonly<Record<string, string>>;
  /** SIGTERM is sent then; 30 s when absent. */
  readonly stopAfterMs?: number;
}

const program = fileURLToPath(new URL("../../../bin/forkd", import.meta.url));
/** An address at which nothing listens: port 9 (discard) of the loopback. */
export const nowhere = "http://127.0.0.1:9";

/** Runs the real `bin/forkd` to its end, without any FORKD_ variable of whoever runs the tests. */
export function forkd(args: readonly string[], options: CliOptions = {}): Promise<CliEnd> {
  return runProgram([program, ...args], options);
}

/** The same, with one last word that is no text: printf(1) says its bytes, `\\377`. */
export function forkdWithBytes(args: readonly string[], bytes: string): Promise<CliEnd> {
  const script = 'bytes=$(printf "$1"); shift; exec "$@" "$bytes"';
  return runProgram(["sh", "-euc", script, "sh", bytes, program, ...args], {});
}

async function runProgram(argv: readonly string[], options: CliOptions): Promise<CliEnd> {
  const out: string[] = [];
  const err: string[] = [];
  const inherited = Object.entries(process.env).filter(
    ([name]) => !name.startsWith("FORKD_") && !/_proxy$/i.test(name),
  );
  const { code } = await runChild(argv, {
    cwd: "/",
    env: { ...Object.fromEntries(inherited), FORKD_URL: nowhere, ...options.env },
    deadlineMs: options.stopAfterMs ?? 30_000,
    onStdoutLine: (line) => out.push(line),
    onStderrLine: (line) => err.push(line),
  });
  return { code, out: out.join("\n"), err: err.join("\n") };
}
