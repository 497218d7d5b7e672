import type { TestEvent } from "node:test/reporters";

/** One finished test, as the runner reads it from a line of the child's standard output. */
export interface TestLine {
  readonly kind: "test";
  readonly file: string;
  readonly name: string;
  readonly outcome: "passed" | "failed" | "skipped";
  readonly durationMs: number;
  /** Why it failed (with the stack) or why it was skipped. */
  readonly reason: string;
}

/** What a test printed; shown next to a failure of the same file, lines with `note: ` always. */
export interface OutputLine {
  readonly kind: "output";
  readonly file: string;
  readonly text: string;
}

export type ReportLine = TestLine | OutputLine;

interface Finished {
  readonly name: string;
  readonly nesting: number;
  readonly file?: string;
  readonly skip?: string | boolean;
  readonly todo?: string | boolean;
  readonly details: {
    readonly duration_ms: number;
    readonly type?: string;
    readonly error?: Error;
  };
}

const isNoted = (note: string | boolean | undefined): boolean =>
  note !== undefined && note !== false;

const textOf = (note: string | boolean | undefined): string =>
  typeof note === "string" ? note : "";

function describeError(error: Error | undefined): string {
  if (error === undefined) return "no error was given";
  const cause = error.cause instanceof Error ? error.cause : error;
  return cause.stack ?? String(error.cause ?? error.message);
}

/**
 * A suite fails by itself only when a hook of it failed; its tests are counted on their own, but
 * those of one that is skipped are not told of at all.
 */
function isSuiteOnly(data: Finished, failed: boolean): boolean {
  if (data.details.type !== "suite" || isNoted(data.skip)) return false;
  const error = data.details.error;
  const type = error !== undefined && "failureType" in error ? error.failureType : "";
  return !failed || type === "subtestsFailed";
}

/** Node reports a file without tests as one passed test with the file's path as its name. */
function isEmptyFile(data: Finished, failed: boolean): boolean {
  if (failed || data.nesting !== 0 || !/\.test\.m?[jt]s$/.test(data.name)) return false;
  return data.file === data.name || data.file?.endsWith(`/${data.name}`) === true;
}

/** One finished test as a line, or null for what is no test of its own. */
export function toLine(type: string, data: Finished): TestLine | null {
  const failed = type === "test:fail" && data.todo === undefined;
  if (isSuiteOnly(data, failed) || isEmptyFile(data, failed)) return null;
  const skipped = isNoted(data.skip);
  const todo = isNoted(data.todo);
  const base = { kind: "test", file: data.file ?? "", name: data.name } as const;
  const durationMs = data.details.duration_ms;
  if (skipped) return { ...base, outcome: "skipped", durationMs, reason: textOf(data.skip) };
  if (todo) return { ...base, outcome: "skipped", durationMs, reason: `todo ${textOf(data.todo)}` };
  if (failed) {
    return { ...base, outcome: "failed", durationMs, reason: describeError(data.details.error) };
  }
  return { ...base, outcome: "passed", durationMs, reason: "" };
}

function lineOf(event: TestEvent): ReportLine | null {
  switch (event.type) {
    case "test:pass":
    case "test:fail":
      return toLine(event.type, event.data);
    case "test:stdout":
    case "test:stderr":
      return { kind: "output", file: event.data.file ?? "", text: event.data.message };
    default:
      return null;
  }
}

/** The reporter that `node --test` loads: one JSON object a line. */
async function* jsonLines(events: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  for await (const event of events) {
    const line = lineOf(event);
    if (line !== null) yield `${JSON.stringify(line)}\n`;
  }
}

// biome-ignore lint/style/noDefaultExport: node:test loads a reporter from the default export.
export default jsonLines;
