/** Bytes that several collectors may hold together. */
export class ByteBudget {
  #left: number;
  readonly #parent: ByteBudget | undefined;

  /** What is taken from this budget is taken from `parent` too. */
  constructor(bytesMax: number, parent?: ByteBudget) {
    this.#left = bytesMax;
    this.#parent = parent;
  }

  get left(): number {
    return Math.min(this.#left, this.#parent?.left ?? this.#left);
  }

  /** `bytes` must not be more than what is left. */
  take(bytes: number): void {
    this.#left -= bytes;
    this.#parent?.take(bytes);
  }

  giveBack(bytes: number): void {
    this.#left += bytes;
    this.#parent?.giveBack(bytes);
  }
}

const firstBytes = 4096;

/**
 * Collects bytes up to a bound of its own and a shared one, and remembers whether there were more.
 * It holds them in one block: a guest that sends single bytes costs no more than one that does not.
 */
export class BoundedText implements Disposable {
  readonly #bytesMax: number;
  readonly #budget: ByteBudget;
  #block = Buffer.alloc(0);
  #bytes = 0;
  truncated = false;

  constructor(bytesMax: number, budget: ByteBudget) {
    this.#bytesMax = bytesMax;
    this.#budget = budget;
  }

  /** Copies what there is room for. */
  append(chunk: Uint8Array): void {
    const room = this.#grow(this.#bytes + chunk.length) - this.#bytes;
    if (chunk.length > room) this.truncated = true;
    this.#block.set(chunk.subarray(0, room), this.#bytes);
    this.#bytes += Math.min(chunk.length, room);
  }

  /** The bytes themselves, valid until the next append. */
  toBuffer(): Buffer {
    return this.#block.subarray(0, this.#bytes);
  }

  /** UTF-8; bytes that are none become U+FFFD. */
  toString(): string {
    return this.#block.toString("utf8", 0, this.#bytes);
  }

  /** Gives the shared bound back what this has taken of it. */
  [Symbol.dispose](): void {
    this.#budget.giveBack(this.#block.length);
    this.#block = Buffer.alloc(0);
    this.#bytes = 0;
  }

  /** Makes room for `bytes` in all, as far as the bounds allow; returns how many there is room for. */
  #grow(bytes: number): number {
    const held = this.#block.length;
    if (bytes <= held) return held;
    const wanted = Math.min(Math.max(bytes, 2 * held, firstBytes), this.#bytesMax);
    const size = Math.min(wanted, held + this.#budget.left);
    if (size <= held) return held;
    this.#budget.take(size - held);
    const block = Buffer.allocUnsafeSlow(size);
    this.#block.copy(block, 0, 0, this.#bytes);
    this.#block = block;
    return size;
  }
}
