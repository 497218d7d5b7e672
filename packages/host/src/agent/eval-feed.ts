import { StringDecoder } from "node:string_decoder";
import { BoundedText, ByteBudget } from "./bounded-text.ts";
import { initialCreditBytes } from "./stream.ts";

export type EvalChannel = "stdout" | "stderr";

/** Text that code printed, and the bytes that it was in the guest. */
export interface EvalPiece {
  readonly from: EvalChannel;
  readonly text: string;
  readonly bytes: number;
}

/** Turns between the two outputs that are kept; beyond, what is late is put to its like. */
const runsMax = 64;
/** A block may be twice as large as what is in it, and one of few bytes has a least size. */
const blockBytesMax = 4 * initialCreditBytes;

interface Run {
  readonly from: EvalChannel;
  readonly block: BoundedText;
  bytes: number;
}

/**
 * What code prints, on its way to a reader at its own pace. It holds one window of the guest's
 * credit, in few blocks however small the pieces come; the code waits while that is not taken.
 */
export class EvalFeed {
  readonly #budget = new ByteBudget(blockBytesMax);
  readonly #decoders = { stdout: new StringDecoder("utf8"), stderr: new StringDecoder("utf8") };
  readonly #runs: Run[] = [];
  /** What came and was not taken, what is in the reader's hands too. */
  #heldBytes = 0;
  #onTaken: (bytes: number) => void = () => undefined;
  #isLate = false;
  #isEnded = false;
  #wake: (() => void) | undefined;
  /** Whether output was dropped, because the code's time was over and nobody had taken it. */
  truncated = false;

  /** Nothing more comes, and all that came was taken. */
  get isOver(): boolean {
    return this.#isEnded && this.#runs.length === 0;
  }

  /** Nothing is there to be taken, and more may come. */
  get isSilent(): boolean {
    return !this.#isEnded && this.#runs.length === 0;
  }

  /** `onTaken` is told of bytes that the guest may send again. */
  begin(onTaken: (bytes: number) => void): void {
    this.#onTaken = onTaken;
  }

  /** Output as it comes; the chunk may be used again after this. */
  push(from: EvalChannel, chunk: Uint8Array): void {
    if (this.#isLate) {
      this.#onTaken(chunk.length);
      if (this.#heldBytes + chunk.length > initialCreditBytes) {
        this.truncated = true;
        return;
      }
    }
    const run = this.#runOf(from);
    run.block.append(chunk);
    run.bytes += chunk.length;
    this.#heldBytes += chunk.length;
    this.#wake?.();
  }

  /**
   * The code's time is over: what is still held must not keep it from ending, so the guest may
   * send on, and what there is no room for is dropped.
   */
  hurry(): void {
    if (this.#isLate) return;
    this.#isLate = true;
    this.#onTaken(this.#heldBytes);
  }

  /** Nothing more comes. */
  end(): void {
    this.#isEnded = true;
    this.#wake?.();
  }

  /**
   * What is there of the output that was first; undefined when there is nothing. Its text is empty
   * while only a part of a character is there. Tell {@link took} once it is done with.
   */
  take(): EvalPiece | undefined {
    const run = this.#runs.shift();
    if (run === undefined) return undefined;
    const { from, block, bytes } = run;
    const text = this.#decoders[from].write(block.toBuffer());
    block[Symbol.dispose]();
    return { from, text, bytes };
  }

  /** The reader is done with so many bytes. */
  took(bytes: number): void {
    this.#heldBytes -= bytes;
    if (!this.#isLate) this.#onTaken(bytes);
  }

  /** What an output ended in the middle of, as U+FFFD; once, after the last piece. */
  rest(from: EvalChannel): string {
    return this.#decoders[from].end();
  }

  /** Resolves with the next output, the end, or after `ms`. */
  async wait(ms: number): Promise<void> {
    if (this.#runs.length > 0 || this.#isEnded) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, ms);
    this.#wake = resolve;
    await promise;
    clearTimeout(timer);
    this.#wake = undefined;
  }

  #runOf(from: EvalChannel): Run {
    const last = this.#runs.at(-1);
    if (last?.from === from) return last;
    const like = this.#runs.length < runsMax ? undefined : this.#runs.at(-2);
    // Turns alternate, so the last but one is of this output.
    if (like !== undefined) return like;
    const run = { from, block: new BoundedText(initialCreditBytes, this.#budget), bytes: 0 };
    this.#runs.push(run);
    return run;
  }
}
