import { type ParseArgsConfig, parseArgs } from "node:util";

/**
 * The words of a program of ours by parseArgs' rules. For `--help` it prints `usage`, a line
 * without its first word, and ends the process; for a word that it does not take too, with 2.
 */
export function readArgs<const Config extends ParseArgsConfig>(
  usage: string,
  config: Config,
): ReturnType<typeof parseArgs<Config>> {
  if (process.argv.slice(2).includes("--help")) {
    console.log(`usage: ${usage}`);
    process.exit(0);
  }
  try {
    return parseArgs(config);
  } catch (error) {
    failUsage(usage, error instanceof Error ? error.message : String(error));
  }
}

/** Ends the process with 2, and with what was wrong. */
export function failUsage(usage: string, problem: string): never {
  console.error(`error: ${problem}\nusage: ${usage}`);
  process.exit(2);
}
