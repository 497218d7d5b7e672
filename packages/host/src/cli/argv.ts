import { isUtf8 } from "node:buffer";
import { readFileSync } from "node:fs";
import { usage } from "./flags.ts";

/** What Node puts where a word of the command line is no UTF-8. */
const replacement = "\ufffd";

/**
 * Refuses a command line that is not UTF-8: its words would reach a guest, or name files, as others
 * than they are. Throws bad_request. One that has U+FFFD itself passes.
 */
export function requireTextWords(words: readonly string[]): void {
  if (!words.some((word) => word.includes(replacement))) return;
  // The bytes themselves; Node keeps only the texts.
  if (isUtf8(readFileSync("/proc/self/cmdline"))) return;
  throw usage(
    "the command line holds bytes that are not UTF-8",
    "give bytes as input: forkd exec -i ID -- COMMAND < FILE",
  );
}
