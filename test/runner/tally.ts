import type { ReportLine } from "./reporter.ts";

export interface Skip {
  readonly name: string;
  readonly reason: string;
}

/** What one project came to. */
export interface Tally {
  readonly project: string;
  passed: number;
  failed: number;
  readonly skips: Skip[];
  readonly failures: string[];
  /** Lines that tests printed after `note: `, for whoever reads the run. */
  readonly notes: string[];
  durationMs: number;
  /** Why there was nothing to run, when that is no failure. */
  absent: string | null;
}

/** Kept of what one file printed, for its failures. */
const outputCharsMax = 8_000;

export function newTally(project: string): Tally {
  return {
    project,
    passed: 0,
    failed: 0,
    skips: [],
    failures: [],
    notes: [],
    durationMs: 0,
    absent: null,
  };
}

export function addFailure(tally: Tally, title: string, detail: string): void {
  tally.failed += 1;
  tally.failures.push(`${title}\n${indent(detail.trimEnd())}`);
}

const indent = (text: string): string => text.replaceAll(/^/gm, "    ");

/** Adds up report lines; `outputs` holds the tail of what each file printed. */
export class Collector {
  readonly #outputs = new Map<string, string>();
  readonly tally: Tally;
  readonly #relative: (file: string) => string;

  constructor(tally: Tally, relative: (file: string) => string) {
    this.tally = tally;
    this.#relative = relative;
  }

  add(line: ReportLine): void {
    if (line.kind === "output") {
      const before = this.#outputs.get(line.file) ?? "";
      this.#outputs.set(line.file, (before + line.text).slice(-outputCharsMax));
      for (const [, note = ""] of line.text.matchAll(/^note: (.+)$/gm)) this.tally.notes.push(note);
      return;
    }
    const title = `${this.#relative(line.file)} > ${line.name}`;
    if (line.outcome === "passed") this.tally.passed += 1;
    else if (line.outcome === "skipped")
      this.tally.skips.push({ name: title, reason: line.reason });
    else addFailure(this.tally, title, this.#withOutput(line.file, line.reason));
  }

  #withOutput(file: string, reason: string): string {
    const output = this.#outputs.get(file);
    return output === undefined
      ? reason
      : `${reason}\n--- output of the file, last part ---\n${output}`;
  }
}

/** The line that a CI system reads: alone, last. */
export function closingLine(tallies: readonly Tally[]): string {
  const sum = (count: (tally: Tally) => number): number =>
    tallies.reduce((total, tally) => total + count(tally), 0);
  const skipped = sum((tally) => tally.skips.length);
  const line = `${sum((t) => t.passed)} passed, ${sum((t) => t.failed)} failed`;
  return skipped === 0 ? line : `${line}, ${skipped} skipped`;
}

/** All that is printed after the projects have run, but for the closing line. */
export function summary(tallies: readonly Tally[]): string {
  const lines: string[] = [];
  for (const tally of tallies) {
    for (const failure of tally.failures) lines.push(`FAILED ${tally.project}: ${failure}`, "");
  }
  for (const tally of tallies) {
    for (const skip of tally.skips) {
      lines.push(`skipped ${tally.project}: ${skip.name}: ${skip.reason || "no reason given"}`);
    }
  }
  for (const tally of tallies) {
    for (const note of tally.notes) lines.push(`note ${tally.project}: ${note}`);
  }
  if (lines.length > 0 && lines.at(-1) !== "") lines.push("");
  for (const tally of tallies) lines.push(summaryRow(tally));
  return lines.join("\n");
}

function summaryRow(tally: Tally): string {
  const name = tally.project.padEnd(12);
  if (tally.absent !== null) return `${name} ${tally.absent}`;
  const seconds = (tally.durationMs / 1000).toFixed(1);
  return (
    `${name} passed=${tally.passed} failed=${tally.failed} ` +
    `skipped=${tally.skips.length} time=${seconds}s`
  );
}

/** A run is good when nothing failed and something was tested. */
export function exitCode(tallies: readonly Tally[]): number {
  const ran = tallies.reduce((total, tally) => total + tally.passed, 0);
  return ran > 0 && tallies.every((tally) => tally.failed === 0) ? 0 : 1;
}
