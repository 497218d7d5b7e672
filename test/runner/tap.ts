import { addFailure, type Tally } from "./tally.ts";

/** One line of the Test Anything Protocol that states a result. */
const resultPattern = /^(not )?ok\b\s*\d*\s*-?\s*([^#]*?)\s*(?:#\s*(SKIP|TODO)\b\s*(.*))?$/i;

/** Counts one line of a C test program; lines that are no result are ignored. */
export function addTapLine(tally: Tally, program: string, line: string): void {
  const match = resultPattern.exec(line.trimEnd());
  if (match === null) return;
  const name = `${program} > ${match[2] || "unnamed"}`;
  if (match[3] !== undefined) tally.skips.push({ name, reason: match[4] || match[3] });
  else if (match[1] === undefined) tally.passed += 1;
  else addFailure(tally, name, line);
}
