import type { Readable } from "node:stream";

const blockBytes = 512;
/** Members of one archive, and the bytes of one that only names others. */
const membersMax = 10_000;
const skippedBytesMax = 2 * 1024 ** 3;

/** A plain file of an archive, before its bytes. Its name is only ever compared, never a path. */
export interface TarEntry {
  readonly name: string;
  readonly size: number;
}

/** Takes one file's bytes as they come, all of them before it resolves; null skips them. */
export type TakeEntry = (entry: TarEntry) => ((chunk: Buffer) => Promise<void>) | null;

/**
 * Reads a tar archive (POSIX.1-2001 pax, ustar, GNU) from a stream, without unpacking it. Links,
 * devices and directories are passed over. Throws Error that says what is wrong: a checksum, a cut,
 * more than the bounds.
 */
export async function readTar(stream: Readable, take: TakeEntry): Promise<void> {
  const source = new ByteSource(stream);
  let skipped = 0;
  for (let members = 0; ; members += 1) {
    if (members > membersMax) throw new Error(`the archive has more than ${membersMax} members`);
    const header = await source.block();
    if (header === null || header.every((byte) => byte === 0)) return;
    const { name, size, isFile } = parseHeader(header);
    const sink = isFile ? take({ name, size }) : null;
    if (sink === null) skipped += size;
    if (skipped > skippedBytesMax) throw new Error("the archive is larger than any release");
    await source.feed(size, sink ?? (async () => undefined));
    await source.feed((blockBytes - (size % blockBytes)) % blockBytes, async () => undefined);
  }
}

interface Header extends TarEntry {
  readonly isFile: boolean;
}

function parseHeader(header: Buffer): Header {
  const text = (from: number, length: number): string => {
    const field = header.subarray(from, from + length);
    const end = field.indexOf(0);
    return field.toString("utf8", 0, end < 0 ? length : end);
  };
  const octal = (from: number, length: number): number => {
    const digits = text(from, length).trim();
    if (!/^[0-7]{1,12}$/.test(digits)) throw new Error("the archive is damaged: a number is none");
    return Number.parseInt(digits, 8);
  };
  const sum = header.reduce((total, byte, at) => total + (at >= 148 && at < 156 ? 32 : byte), 0);
  if (octal(148, 8) !== sum) throw new Error("the archive is damaged: a checksum is wrong");
  const flag = text(156, 1);
  return { name: text(0, 100), size: octal(124, 12), isFile: flag === "0" || flag === "" };
}

/** A stream's bytes by count. */
class ByteSource {
  readonly #chunks: AsyncIterator<Buffer>;
  #rest: Buffer = Buffer.alloc(0);

  constructor(stream: Readable) {
    this.#chunks = stream[Symbol.asyncIterator]();
  }

  /** Null at the end of the stream. */
  async block(): Promise<Buffer | null> {
    const parts: Buffer[] = [];
    if (this.#rest.length === 0 && !(await this.#more())) return null;
    await this.feed(blockBytes, async (chunk) => void parts.push(chunk));
    return Buffer.concat(parts);
  }

  async feed(bytes: number, sink: (chunk: Buffer) => Promise<void>): Promise<void> {
    for (let left = bytes; left > 0; ) {
      if (this.#rest.length === 0 && !(await this.#more())) {
        throw new Error("the archive is cut off");
      }
      const chunk = this.#rest.subarray(0, left);
      this.#rest = this.#rest.subarray(chunk.length);
      left -= chunk.length;
      await sink(chunk);
    }
  }

  async #more(): Promise<boolean> {
    const { value, done } = await this.#chunks.next();
    if (done === true) return false;
    this.#rest = value;
    return this.#rest.length > 0 || (await this.#more());
  }
}
