/** Collects bytes up to a bound and remembers whether there were more. */
export class BoundedText {
  readonly #chunks: Buffer[] = [];
  readonly #bytesMax: number;
  #bytes = 0;
  truncated = false;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  append(chunk: Buffer): void {
    const room = this.#bytesMax - this.#bytes;
    if (chunk.length > room) this.truncated = true;
    if (room <= 0) return;
    const kept = chunk.subarray(0, room);
    this.#chunks.push(kept);
    this.#bytes += kept.length;
  }

  /** UTF-8; bytes that are none become U+FFFD. */
  toString(): string {
    return Buffer.concat(this.#chunks).toString("utf8");
  }
}
