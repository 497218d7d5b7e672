import type { Readable } from "node:stream";
import { ForkdError } from "@forkd/api";
import { coveredBytes, type Extent, extentsMax } from "../store/extents.ts";
import {
  blockBytes,
  checksumOf,
  fields,
  numberBytes,
  paddingBytes,
  segmentTables,
  type TarFile,
} from "./tar-format.ts";

/** Zeros that may follow the end of an archive: GNU tar fills a record of 20 blocks. */
const trailingBytesMax = 1024 * 1024;

/** Takes a file's data as it comes: pieces of the archive's bytes, at the place in the file. */
export type TakeData = (piece: Buffer, offset: number) => Promise<void>;

/**
 * Reads the tar of a pack, whoever made it: everything in it is hostile. There are files in it, by
 * names that are only ever compared, and nothing else: links, devices, directories and whatever
 * changes the meaning of the next header are refused. Throws pack_invalid that says what is wrong.
 */
export class PackReader {
  readonly #chunks: AsyncIterator<Buffer>;
  #rest: Buffer = Buffer.alloc(0);

  constructor(stream: Readable) {
    this.#chunks = stream[Symbol.asyncIterator]();
  }

  /** The next file, whose data must be taken before the one after it; null at the end. */
  async next(): Promise<TarFile | null> {
    const header = await this.#block();
    if (header.every((byte) => byte === 0)) {
      await this.#finish();
      return null;
    }
    return this.#parse(header);
  }

  /** All data of the file that `next` told of, in the order of its extents. */
  async data({ extents }: TarFile, take: TakeData): Promise<void> {
    for (const { offset, length } of extents) {
      let at = offset;
      await this.#feed(length, async (piece) => {
        await take(piece, at);
        at += piece.length;
      });
    }
    await this.#feed(paddingBytes(coveredBytes(extents)), async () => undefined);
  }

  async #parse(header: Buffer): Promise<TarFile> {
    if (numberAt(header, fields.checksum) !== checksumOf(header)) {
      throw invalid("the checksum of a header is wrong");
    }
    const name = textAt(header, fields.name);
    const stored = numberAt(header, fields.size);
    const type = textAt(header, fields.type);
    if (type === "0" || type === "") {
      return { name, size: stored, extents: stored === 0 ? [] : [{ offset: 0, length: stored }] };
    }
    if (type === "S") return await this.#parseSparse(header, { name, stored });
    const shown = `${JSON.stringify(type)}, of ${JSON.stringify(name)}`;
    throw invalid(`a pack holds plain files only, not the type ${shown}`);
  }

  async #parseSparse(
    header: Buffer,
    { name, stored }: { readonly name: string; readonly stored: number },
  ): Promise<TarFile> {
    const size = numberAt(header, fields.realSize);
    const segments = segmentsOf(header, segmentTables.header);
    let isExtended = header[segmentTables.header.isExtendedAt] !== 0;
    while (isExtended) {
      const table = await this.#block();
      const more = segmentsOf(table, segmentTables.more);
      segments.push(...more);
      if (more.length === 0 || segments.length > extentsMax + 1)
        throw invalid(`the table of ${JSON.stringify(name)} does not end`);
      isExtended = table[segmentTables.more.isExtendedAt] !== 0;
    }
    let end = 0;
    for (const { offset, length } of segments) {
      if (offset < end || offset + length > size) {
        throw invalid(`the table of ${JSON.stringify(name)} names impossible places`);
      }
      end = offset + length;
    }
    const extents = segments.filter(({ length }) => length > 0);
    if (coveredBytes(extents) !== stored) {
      throw invalid(`the table of ${JSON.stringify(name)} is not that of its data`);
    }
    return { name, size, extents };
  }

  async #block(): Promise<Buffer> {
    const parts: Buffer[] = [];
    await this.#feed(blockBytes, async (piece) => void parts.push(piece));
    return Buffer.concat(parts);
  }

  /** Reads to the end of the stream, so that a damage after the last file is seen too. */
  async #finish(): Promise<void> {
    let left = trailingBytesMax;
    while (this.#rest.length > 0 || (await this.#more())) {
      left -= this.#rest.length;
      const isEmpty = this.#rest.every((byte) => byte === 0);
      if (left < 0 || !isEmpty) throw invalid("something follows the end of the archive");
      this.#rest = Buffer.alloc(0);
    }
  }

  async #feed(bytes: number, sink: (piece: Buffer) => Promise<void>): Promise<void> {
    for (let left = bytes; left > 0; ) {
      if (this.#rest.length === 0 && !(await this.#more())) throw invalid("the archive is cut off");
      const piece = this.#rest.subarray(0, left);
      this.#rest = this.#rest.subarray(piece.length);
      left -= piece.length;
      await sink(piece);
    }
  }

  async #more(): Promise<boolean> {
    while (this.#rest.length === 0) {
      const { value, done } = await this.#chunks.next();
      if (done === true) return false;
      this.#rest = value;
    }
    return true;
  }
}

type Field = readonly [offset: number, bytes: number];

function textAt(block: Buffer, [offset, bytes]: Field): string {
  const field = block.subarray(offset, offset + bytes);
  const end = field.indexOf(0);
  return field.toString("utf8", 0, end < 0 ? bytes : end);
}

/** Octal digits, or GNU's base 256; never more than a number can hold exactly. */
function numberAt(block: Buffer, field: Field): number {
  const [offset, bytes] = field;
  if (block[offset] === 0x80) {
    const high = block.subarray(offset + 1, offset + bytes - 8);
    const value = bytes > 8 ? Number(block.readBigUInt64BE(offset + bytes - 8)) : Number.NaN;
    if (high.every((byte) => byte === 0) && Number.isSafeInteger(value)) return value;
    throw invalid("a number in a header is too large");
  }
  const digits = textAt(block, field).trim();
  if (/^[0-7]{1,12}$/.test(digits)) return Number.parseInt(digits, 8);
  throw invalid("a number in a header is none");
}

type TableShape = (typeof segmentTables)[keyof typeof segmentTables];

/** A table ends with the first empty place: an empty length is no end, an empty field is. */
function segmentsOf(block: Buffer, { at, count }: TableShape): Extent[] {
  const segments: Extent[] = [];
  for (let i = 0; i < count; i += 1) {
    const place = at + i * 2 * numberBytes;
    if (block[place + numberBytes] === 0) break;
    segments.push({
      offset: numberAt(block, [place, numberBytes]),
      length: numberAt(block, [place + numberBytes, numberBytes]),
    });
  }
  return segments;
}

/** A failure of a pack's own making. */
export function invalid(what: string, cause?: unknown): ForkdError {
  return new ForkdError("pack_invalid", what, { cause });
}
