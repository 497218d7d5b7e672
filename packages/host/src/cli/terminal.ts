import type { ReadStream, WriteStream } from "node:tty";
import type { TerminalSize } from "@forkd/api";
import { run } from "../lib/exec.ts";

/** For a terminal that does not know its size. */
const sizeDefault: TerminalSize = { rows: 24, cols: 80 };

/** It makes one call of the kernel. */
const sttyTimeoutMs = 2_000;

/** The user's terminal in raw mode: every key goes to the guest. Dispose it to get it back. */
export class RawTerminal implements Disposable {
  readonly #input: ReadStream;
  readonly #output: WriteStream;
  readonly #restore = (): void => this[Symbol.dispose]();
  #onResize: (() => void) | undefined;

  private constructor(input: ReadStream, output: WriteStream) {
    this.#input = input;
    this.#output = output;
    // However the process ends, short of SIGKILL, the shell gets its terminal back.
    process.once("exit", this.#restore);
    input.setRawMode(true);
  }

  static async open(input: ReadStream, output: WriteStream): Promise<RawTerminal> {
    const terminal = new RawTerminal(input, output);
    // Node leaves output processing on, which would put a return before each new line; the guest's
    // own terminal has done that where it is wanted. Without stty the return comes twice.
    // By its path, because a program that is run has no terminal of its own.
    const stty = ["stty", "-F", `/proc/${process.pid}/fd/0`, "-opost"];
    await run(stty, { timeoutMs: sttyTimeoutMs }).catch(() => undefined);
    return terminal;
  }

  get size(): TerminalSize {
    return sizeOf(this.#output);
  }

  /** Calls `listener` with every new size of the window. */
  onResize(listener: (size: TerminalSize) => void): void {
    this.#onResize = () => listener(this.size);
    this.#output.on("resize", this.#onResize);
  }

  [Symbol.dispose](): void {
    process.removeListener("exit", this.#restore);
    if (this.#onResize !== undefined) this.#output.removeListener("resize", this.#onResize);
    this.#input.setRawMode(false);
    this.#input.pause();
  }
}

/** The size of a window; what is no terminal has the usual one. */
export function sizeOf({ rows, columns }: Partial<WriteStream>): TerminalSize {
  return { rows: rows || sizeDefault.rows, cols: columns || sizeDefault.cols };
}
