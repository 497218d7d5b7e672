import { ForkdError } from "@forkd/api";
import { coveredBytes, type Extent } from "../store/extents.ts";
import {
  blockBytes,
  checksumOf,
  fields,
  gnuMagic,
  isDense,
  numberBytes,
  segmentTables,
  type TarFile,
} from "./tar-format.ts";

type Field = readonly [offset: number, bytes: number];

/** What ends an archive. */
export const archiveEnd: Buffer = Buffer.alloc(2 * blockBytes);

/**
 * All that comes before a file's data: its header, with the blocks of its table when it is sparse.
 * Same input, same bytes: there is no owner and no time in it.
 */
export function encodeHeader(file: TarFile): Buffer {
  const { name, size, extents } = file;
  if (Buffer.byteLength(name) > fields.name[1] || name === "") {
    throw new ForkdError("internal", `${JSON.stringify(name)} is no name for a member of a pack`);
  }
  const header = Buffer.alloc(blockBytes);
  header.write(name, ...fields.name, "utf8");
  putNumber(header, fields.mode, 0o644);
  for (const zero of [fields.uid, fields.gid, fields.mtime]) putNumber(header, zero, 0);
  putNumber(header, fields.size, coveredBytes(extents));
  header.write(gnuMagic, ...fields.magic, "latin1");
  if (isDense(file)) {
    header.write("0", ...fields.type, "latin1");
    return seal(header);
  }
  header.write("S", ...fields.type, "latin1");
  putNumber(header, fields.realSize, size);
  const segments = withEnd(extents, size);
  const { count } = segmentTables.header;
  const more = putSegments(header, segmentTables.header, segments);
  return Buffer.concat([seal(header), ...(more ? moreTables(segments.slice(count)) : [])]);
}

/** Readers find the end of a file in its last segment, which may be empty. */
function withEnd(extents: readonly Extent[], size: number): readonly Extent[] {
  const last = extents.at(-1);
  const isEnded = last !== undefined && last.offset + last.length === size;
  return isEnded ? extents : [...extents, { offset: size, length: 0 }];
}

function moreTables(segments: readonly Extent[]): Buffer[] {
  const { count } = segmentTables.more;
  const tables: Buffer[] = [];
  for (let from = 0; from < segments.length; from += count) {
    const table = Buffer.alloc(blockBytes);
    putSegments(table, segmentTables.more, segments.slice(from, from + count + 1));
    tables.push(table);
  }
  return tables;
}

type TableShape = (typeof segmentTables)[keyof typeof segmentTables];

/** Fills one table; says whether there are more segments than it holds. */
function putSegments(
  block: Buffer,
  { at, count, isExtendedAt }: TableShape,
  segments: readonly Extent[],
): boolean {
  segments.slice(0, count).forEach(({ offset, length }, i) => {
    const place = at + i * 2 * numberBytes;
    putNumber(block, [place, numberBytes], offset);
    putNumber(block, [place + numberBytes, numberBytes], length);
  });
  const hasMore = segments.length > count;
  block[isExtendedAt] = hasMore ? 1 : 0;
  return hasMore;
}

/** Octal, with a NUL behind it; what is too large for that in GNU's base 256. */
function putNumber(block: Buffer, [offset, bytes]: Field, value: number): void {
  const octal = value.toString(8).padStart(bytes - 1, "0");
  if (octal.length < bytes) {
    block.write(octal, offset, "latin1");
    return;
  }
  block[offset] = 0x80;
  block.writeBigUInt64BE(BigInt(value), offset + bytes - 8);
}

function seal(header: Buffer): Buffer {
  const [offset] = fields.checksum;
  header.write(`${checksumOf(header).toString(8).padStart(6, "0")}\0 `, offset, "latin1");
  return header;
}
