import { ForkdError } from "@forkd/api";
import type { OpenStream } from "./client.ts";

const fieldPrefix = "data: ";

/**
 * The `data` of each server-sent event as a daemon writes them, one line each; null for a block
 * without (a sign of life, the retry time). Throws internal beyond `charsMax` characters of one
 * block, and what ended the connection early.
 */
export async function* serverEvents(
  { response, ending }: OpenStream,
  charsMax: number,
): AsyncGenerator<string | null, void> {
  if (response.body === null) return;
  const decoder = new TextDecoder();
  const splitter = new BlockSplitter(charsMax);
  try {
    for await (const chunk of response.body) {
      yield* splitter.push(decoder.decode(chunk, { stream: true }));
    }
  } catch (thrown) {
    throw ending(thrown);
  }
}

/** Cuts a text into the data of its blocks, looking at each character once however it comes. */
class BlockSplitter {
  readonly #charsMax: number;
  #line: string[] = [];
  #lineChars = 0;
  #data: string | null = null;

  constructor(charsMax: number) {
    this.#charsMax = charsMax;
  }

  *push(text: string): Generator<string | null, void> {
    const [first = "", ...others] = text.split("\n");
    this.#add(first);
    for (const next of others) {
      const line = this.#line.join("");
      this.#line = [];
      this.#lineChars = 0;
      if (line.startsWith(fieldPrefix)) this.#data = line.slice(fieldPrefix.length);
      if (line === "") {
        yield this.#data;
        this.#data = null;
      }
      this.#add(next);
    }
  }

  #add(part: string): void {
    if (part === "") return;
    this.#line.push(part);
    this.#lineChars += part.length;
    if (this.#lineChars > this.#charsMax) {
      throw new ForkdError("internal", "the daemon sent an event without an end");
    }
  }
}
