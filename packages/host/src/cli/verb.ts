import type { Command } from "commander";
import type { Context } from "./context.ts";
import type { Flags } from "./flags.ts";

/** A command line after the parser, before it means anything. */
export interface VerbInput {
  readonly flags: Flags;
  /** Words before `--`. */
  readonly args: readonly string[];
  /** Words after `--`; empty when there is none. */
  readonly rest: readonly string[];
}

/** One command, always in this shape: describe its options, parse them once, run. */
export interface VerbSpec<Options> {
  /** Adds name, summary, options and examples; no work. */
  readonly describe: (command: Command) => Command;
  /** Throws ForkdError for a command line that makes no sense; nothing has been started then. */
  readonly parse: (input: VerbInput) => Options;
  /** Does it and prints the result; answers the exit code. */
  readonly run: (context: Context, options: Options) => Promise<number>;
}

/** A verb whose options' type is its own business. */
export interface Verb {
  readonly describe: (command: Command) => Command;
  readonly prepare: (input: VerbInput) => (context: Context) => Promise<number>;
}

export function defineVerb<Options>(spec: VerbSpec<Options>): Verb {
  return {
    describe: spec.describe,
    prepare: (input) => {
      const options = spec.parse(input);
      return (context) => spec.run(context, options);
    },
  };
}

/** For options that may be given more than once. */
export function collect(value: string, previous: readonly string[] | undefined): string[] {
  return [...(previous ?? []), value];
}
