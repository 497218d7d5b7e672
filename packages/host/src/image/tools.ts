import { ForkdError } from "@forkd/api";
import { type RunOptions, type RunResult, run } from "../lib/exec.ts";
import { packageOf } from "../lib/program-packages.ts";

export interface ToolOptions extends RunOptions {
  /** Directory for the program's temporary files. */
  readonly tmpDir?: string;
}

/**
 * Runs a program for images: English messages, temporary files where the caller wants them. Throws
 * as `run` does; a missing program comes with the command that installs it.
 */
export async function runTool(
  argv: readonly string[],
  options: ToolOptions = {},
): Promise<RunResult> {
  const { tmpDir, ...rest } = options;
  const [program = ""] = argv;
  const variables = ["LC_ALL=C.UTF-8", ...(tmpDir === undefined ? [] : [`TMPDIR=${tmpDir}`])];
  try {
    return await run(["env", ...variables, ...argv], rest);
  } catch (error) {
    throw missingTool(program, error) ?? named(program, error);
  }
}

/** env(1) exits with 127 when it does not find the program. */
function missingTool(program: string, error: unknown): ForkdError | undefined {
  if (!(error instanceof ForkdError) || !/^env exited with 127\b/.test(error.message)) return;
  return new ForkdError("tool_missing", `the program ${program} is not installed`, {
    hint: `run: apt-get install ${packageOf(program)}`,
    cause: error,
  });
}

/** The failure under the name of the program instead of that of env(1). */
function named(program: string, error: unknown): unknown {
  if (!(error instanceof ForkdError) || !error.message.startsWith("env ")) return error;
  return new ForkdError(error.code, `${program}${error.message.slice("env".length)}`, {
    hint: error.hint,
    cause: error,
  });
}

/** The failure of a tool under another code, when its words say what it means. */
export function reword(error: unknown, rules: readonly RewordRule[]): unknown {
  if (!(error instanceof ForkdError) || error.code !== "tool_failed") return error;
  const rule = rules.find(({ words }) => words.test(error.message));
  if (rule === undefined) return error;
  return new ForkdError(rule.code, `${rule.message}: ${reasonIn(error.message, rule.words)}`, {
    ...(rule.hint !== undefined && { hint: rule.hint }),
    cause: error,
  });
}

export interface RewordRule {
  readonly words: RegExp;
  readonly code: ForkdError["code"];
  readonly message: string;
  readonly hint?: string;
}

const reasonCharsMax = 400;

/** The line with the words, of several the last. */
function reasonIn(message: string, words: RegExp): string {
  const lines = message.split("\n").filter((line) => line.trim() !== "");
  const line = lines.findLast((candidate) => words.test(candidate)) ?? lines.at(-1) ?? "";
  // Tools written in Go log as key=value lines; the text is in msg.
  const text = /\bmsg="((?:[^"\\]|\\.)*)"/.exec(line)?.[1]?.replaceAll('\\"', '"') ?? line;
  return text.trim().slice(-reasonCharsMax);
}
