import { ForkdError, limits } from "@forkd/api";
import { deferred } from "./deferred.ts";

/**
 * One output of a running command, to be read once: `for await (const chunk of process.stdout)`.
 * Chunks are bytes. The command waits while its output is not read; who leaves the loop gives the
 * rest up.
 */
export class Output implements AsyncIterable<Uint8Array> {
  readonly #chunks: Uint8Array[] = [];
  readonly #taken: (bytes: number) => void;
  #isOver = false;
  #failure: unknown;
  #isDiscarded = false;
  #isRead = false;
  #wake: (() => void) | undefined;

  /** `taken` is told of every byte that was read or given up. */
  constructor(taken: (bytes: number) => void) {
    this.#taken = taken;
  }

  /** Throws what the connection failed with, after what had arrived before. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    if (this.#isRead) throw new TypeError("an output is read once");
    this.#isRead = true;
    try {
      for (;;) {
        const chunk = this.#chunks.shift();
        if (chunk !== undefined) {
          this.#taken(chunk.length);
          yield chunk;
        } else if (this.#isOver) {
          if (this.#failure !== undefined) throw this.#failure;
          return;
        } else {
          await this.#more();
        }
      }
    } finally {
      this.discard();
    }
  }

  /** All that comes, as text; throws payload_too_large when it is longer than `bytesMax`. */
  async text(bytesMax: number = limits.execOutputBytesMax): Promise<string> {
    const decoder = new TextDecoder();
    let text = "";
    let bytes = 0;
    for await (const chunk of this) {
      bytes += chunk.length;
      if (bytes > bytesMax) {
        throw new ForkdError("payload_too_large", `the output is longer than ${bytesMax} bytes`, {
          hint: "read it in pieces, or give text() a larger bound",
        });
      }
      text += decoder.decode(chunk, { stream: true });
    }
    return text + decoder.decode();
  }

  /** Gives up what is there and what will come. */
  discard(): void {
    this.#isDiscarded = true;
    for (const chunk of this.#chunks.splice(0)) this.#taken(chunk.length);
  }

  /** Gives it up unless somebody reads it. */
  discardUnread(): void {
    if (!this.#isRead) this.discard();
  }

  /** For the connection: a chunk has arrived. */
  push(chunk: Uint8Array): void {
    if (this.#isDiscarded) {
      this.#taken(chunk.length);
      return;
    }
    this.#chunks.push(chunk);
    this.#wake?.();
  }

  /** For the connection: nothing more will come. */
  end(failure?: unknown): void {
    this.#isOver = true;
    this.#failure = failure;
    this.#wake?.();
  }

  async #more(): Promise<void> {
    const { promise, resolve } = deferred<void>();
    this.#wake = resolve;
    await promise;
    this.#wake = undefined;
  }
}
