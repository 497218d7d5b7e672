import { type ForkdError, toForkdError } from "@forkd/api";
import { type Command, CommanderError } from "commander";
import { requireTextWords } from "./argv.ts";
import { readSettings } from "./context.ts";
import { exitCodeFor, type Outcome } from "./exit.ts";
import { Flags, usage } from "./flags.ts";
import { Stopped, watchStopSignals } from "./interrupt.ts";
import { Output } from "./output.ts";
import { buildProgram, isHelpOrVersion } from "./program.ts";
import type { Verb } from "./verb.ts";

/** The shell around every command: parse, run, turn the end into an exit code. */

const words = process.argv.slice(2);
const dashes = words.indexOf("--");
const ownWords = dashes === -1 ? words : words.slice(0, dashes);
const rest = dashes === -1 ? [] : words.slice(dashes + 1);

const output = new Output({
  stdout: process.stdout,
  stderr: process.stderr,
  json: ownWords.includes("--json"),
  noColor: process.env["NO_COLOR"],
});
const signal = watchStopSignals((name) =>
  process.exit(exitCodeFor({ kind: "stopped", signal: name })),
);

async function runVerb(verb: Verb, command: Command): Promise<Outcome> {
  const flags = new Flags(command.optsWithGlobals());
  const args = command.args.slice(0, command.args.length - rest.length);
  const start = parsed(() => {
    const settings = readSettings(flags, process.env, process.getuid?.() ?? -1);
    return { settings, execute: verb.prepare({ flags, args, rest }) };
  });
  const code = await start.execute({ settings: start.settings, output, signal });
  return { kind: "done", code };
}

/** Marks whatever `read` throws as a mistake of the command line. */
function parsed<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw new UsageError(toForkdError(error));
  }
}

class UsageError extends Error {
  readonly problem: ForkdError;

  constructor(problem: ForkdError) {
    super(problem.message, { cause: problem });
    this.problem = problem;
  }
}

async function main(): Promise<Outcome> {
  let outcome: Outcome = { kind: "usage" };
  const program = buildProgram(async (verb, command) => {
    outcome = await runVerb(verb, command);
  });
  try {
    if (words.length === 0) {
      process.stderr.write(program.helpInformation());
      return outcome;
    }
    parsed(() => requireTextWords(words));
    await program.parseAsync(words, { from: "user" });
    return outcome;
  } catch (error) {
    return failureOutcome(error);
  }
}

/** The parser has printed the help of a command that needs a second word, such as `kernel`. */
const helpInsteadOfVerb = "commander.help";

function failureOutcome(error: unknown): Outcome {
  if (isHelpOrVersion(error)) return { kind: "done", code: 0 };
  if (signal.aborted && signal.reason instanceof Stopped) {
    return { kind: "stopped", signal: signal.reason.signal };
  }
  if (error instanceof CommanderError && error.code === helpInsteadOfVerb) return { kind: "usage" };
  const mistake = asUsageProblem(error);
  output.problem(mistake ?? toForkdError(error));
  return { kind: mistake === undefined ? "failed" : "usage" };
}

function asUsageProblem(error: unknown): ForkdError | undefined {
  if (error instanceof UsageError) return error.problem;
  if (!(error instanceof CommanderError)) return undefined;
  // The parser's own words begin with "error:" and may go on with a guess on a second line.
  const [first = "", guess] = error.message.replace(/^error: /, "").split("\n");
  return usage(first, guess === undefined ? undefined : guess.replace(/^\((.*)\)$/, "$1"));
}

const outcome = await main();
await output.flush();
process.exit(exitCodeFor(outcome));
