import type { Writable } from "node:stream";
import { styleText } from "node:util";
import type { ForkdError } from "@forkd/api";
import { type Column, renderTable } from "./table.ts";

export interface Stream extends Writable {
  readonly isTTY?: boolean;
}

export interface OutputOptions {
  readonly stdout: Stream;
  readonly stderr: Stream;
  readonly json: boolean;
  /** NO_COLOR of the environment; any text but the empty one turns colour off. */
  readonly noColor: string | undefined;
}

type Style = "bold" | "dim" | "green" | "red" | "yellow";

/**
 * All that the CLI prints. Results go to standard output, progress and errors to standard error.
 * With `json` there is no progress: standard output is one JSON value, standard error nothing or
 * one JSON problem.
 */
export class Output {
  readonly json: boolean;
  readonly #stdout: Stream;
  readonly #stderr: Stream;
  readonly #color: boolean;

  constructor(options: OutputOptions) {
    this.json = options.json;
    this.#stdout = options.stdout;
    this.#stderr = options.stderr;
    this.#color = (options.noColor ?? "") === "" && options.stderr.isTTY === true;
    // A reader that went away (`forkd images | head -1`) must not stop the clean-up of VMs.
    for (const stream of [this.#stdout, this.#stderr]) stream.on("error", () => undefined);
  }

  /** One line of a result. */
  line(text: string): void {
    this.#stdout.write(`${text}\n`);
  }

  /** The whole result for programs. */
  data(value: unknown): void {
    this.#stdout.write(`${JSON.stringify(value, null, 2)}\n`);
  }

  table<Row>(columns: readonly Column<Row>[], rows: readonly Row[]): void {
    for (const line of renderTable(columns, rows)) this.line(line);
  }

  /** Bytes of a guest, as they are. */
  guest(stream: "stdout" | "stderr", text: string): void {
    if (text !== "") (stream === "stdout" ? this.#stdout : this.#stderr).write(text);
  }

  /** The same, at the pace of whoever reads it; false when nobody does any more. */
  async guestPaced(stream: "stdout" | "stderr", text: string): Promise<boolean> {
    const to = stream === "stdout" ? this.#stdout : this.#stderr;
    return await new Promise((resolve) => to.write(text, (error) => resolve(!error)));
  }

  progress(text: string): void {
    this.#note("==>", "bold", text);
  }

  /** A line for people only, as it is. */
  hint(text: string): void {
    if (!this.json) this.#stderr.write(`${text}\n`);
  }

  success(text: string): void {
    this.#note("✓", "green", text);
  }

  warn(text: string): void {
    this.#note("warning:", "yellow", text);
  }

  /** The closing words of a failure: what and why, then the next thing to do. */
  problem(error: ForkdError): void {
    if (this.json) {
      this.#stderr.write(`${JSON.stringify(error.toProblem())}\n`);
      return;
    }
    this.#stderr.write(`${this.#paint("red", "error:")} ${error.message}\n`);
    this.#stderr.write(`${this.#paint("dim", "hint:")} ${error.hint}\n`);
  }

  /** Resolves when all that was written has left the process, so that it may exit. */
  async flush(): Promise<void> {
    const flushed = (stream: Stream): Promise<void> =>
      new Promise((resolve) => {
        if (stream.destroyed || !stream.writable) resolve();
        else stream.write("", () => resolve());
      });
    await Promise.all([flushed(this.#stdout), flushed(this.#stderr)]);
  }

  #note(mark: string, style: Style, text: string): void {
    if (!this.json) this.#stderr.write(`${this.#paint(style, mark)} ${text}\n`);
  }

  #paint(style: Style, text: string): string {
    return this.#color ? styleText(style, text, { validateStream: false }) : text;
  }
}
