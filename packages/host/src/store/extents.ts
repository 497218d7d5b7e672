import { ForkdError } from "@forkd/api";

/** The page size of x86_64; every extent is a multiple of it. */
export const pageBytes = 4096;

/** Extents of one table. A RAM of 3 GiB with every second page changed has 393216. */
export const extentsMax = 1024 * 1024;

/** Bytes of one entry in a table: offset and length, 64 bits each, little-endian. */
export const extentEntryBytes = 16;

/** A run of guest-physical addresses, in bytes. */
export interface Extent {
  readonly offset: number;
  readonly length: number;
}

/** A run of bytes and the number of the layer that holds them. */
export interface Segment extends Extent {
  readonly layer: number;
}

const end = ({ offset, length }: Extent): number => offset + length;

/** Bytes that the extents cover together. */
export function coveredBytes(extents: readonly Extent[]): number {
  return extents.reduce((sum, { length }) => sum + length, 0);
}

/** Joins neighbours that touch. `extents` are sorted. */
export function coalesce(extents: readonly Extent[]): Extent[] {
  const joined: { offset: number; length: number }[] = [];
  for (const { offset, length } of extents) {
    const last = joined.at(-1);
    if (last !== undefined && end(last) === offset) last.length += length;
    else joined.push({ offset, length });
  }
  return joined;
}

/** The table's bytes, as VMMs and indexes have it. */
export function encodeExtents(extents: readonly Extent[]): Buffer {
  const table = Buffer.alloc(extents.length * extentEntryBytes);
  extents.forEach(({ offset, length }, i) => {
    table.writeBigUInt64LE(BigInt(offset), i * extentEntryBytes);
    table.writeBigUInt64LE(BigInt(length), i * extentEntryBytes + 8);
  });
  return table;
}

/**
 * Reads a table and checks all that a table must be: page-aligned, not empty, sorted, without
 * overlap, inside the RAM. Throws snapshot_corrupt with `path` and the entry that is wrong.
 */
export function decodeExtents(
  table: Buffer,
  { memoryBytes, path }: { readonly memoryBytes: number; readonly path: string },
): Extent[] {
  const count = table.length / extentEntryBytes;
  const wrong = (what: string): ForkdError =>
    new ForkdError("snapshot_corrupt", `${path}: ${what}`);
  if (!Number.isInteger(count)) throw wrong("the table of extents is cut off");
  if (count > extentsMax) throw wrong(`${count} extents are more than ${extentsMax}`);
  const extents: Extent[] = [];
  let previousEnd = 0;
  for (let i = 0; i < count; i += 1) {
    // Beyond 2^53 a number is not exact, but it is surely outside the RAM.
    const offset = Number(table.readBigUInt64LE(i * extentEntryBytes));
    const length = Number(table.readBigUInt64LE(i * extentEntryBytes + 8));
    const isAligned = offset % pageBytes === 0 && length % pageBytes === 0;
    if (!isAligned || length === 0) throw wrong(`extent ${i} is not made of whole pages`);
    if (offset < previousEnd) throw wrong(`extent ${i} begins before the one before it ends`);
    previousEnd = offset + length;
    if (previousEnd > memoryBytes) throw wrong(`extent ${i} is outside the RAM`);
    extents.push({ offset, length });
  }
  return extents;
}

/** Lays `over` on `under`: where both have bytes, `over` counts. Both are sorted, so is the result. */
export function overlay(under: readonly Segment[], over: readonly Segment[]): Segment[] {
  const result: Segment[] = [];
  let i = 0;
  let from = 0;
  const takeUnder = (until: number): void => {
    for (let segment = under[i]; segment !== undefined; segment = under[i]) {
      const offset = Math.max(segment.offset, from);
      const stop = Math.min(end(segment), until);
      if (offset < stop) result.push({ offset, length: stop - offset, layer: segment.layer });
      if (end(segment) > until) return;
      i += 1;
    }
  };
  for (const segment of over) {
    takeUnder(segment.offset);
    result.push(segment);
    from = end(segment);
  }
  takeUnder(Number.POSITIVE_INFINITY);
  return result;
}

/** How many runs an image may have; each costs every VMM a mapping and a fault at its edge. */
export interface RunBounds {
  /** What is aimed at, while filling gaps costs no more bytes than the segments have. */
  readonly runsWanted: number;
  /** What is never exceeded, whatever it costs. */
  readonly runsMax: number;
}

/** Fills gaps between segments with `filler`, the smallest first, until the bounds are met. */
export function fillGaps(
  segments: readonly Segment[],
  { runsWanted, runsMax }: RunBounds,
  filler: number,
): Segment[] {
  const gaps = gapsOf(segments).sort((a, b) => a.length - b.length);
  let runs = gaps.length + 1;
  let bytesLeft = coveredBytes(segments);
  const filled = gaps.filter(({ length }) => {
    const isWorthIt = runs > runsWanted && length <= bytesLeft;
    if (runs <= runsMax && !isWorthIt) return false;
    runs -= 1;
    bytesLeft -= length;
    return true;
  });
  if (filled.length === 0) return [...segments];
  const under = filled.map((gap) => ({ ...gap, layer: filler }));
  return overlay(
    under.sort((a, b) => a.offset - b.offset),
    segments,
  );
}

function gapsOf(segments: readonly Segment[]): Extent[] {
  return segments.flatMap((segment, i) => {
    const before = segments[i - 1];
    const offset = before === undefined ? segment.offset : end(before);
    return offset < segment.offset ? [{ offset, length: segment.offset - offset }] : [];
  });
}
