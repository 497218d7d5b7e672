import type { Extent } from "../store/extents.ts";

/**
 * The tar that packs are made of: GNU format, plain files (`0`) and sparse ones in the old GNU form
 * (`S`), which GNU tar and upstream's reader know. Offsets and widths are those of GNU tar's
 * manual, "Basic Tar Format" and "Storing Sparse Files".
 */

/** Headers and data come in blocks of this size. */
export const blockBytes = 512;

export const fields = {
  name: [0, 100],
  mode: [100, 8],
  uid: [108, 8],
  gid: [116, 8],
  size: [124, 12],
  mtime: [136, 12],
  checksum: [148, 8],
  type: [156, 1],
  linkName: [157, 100],
  magic: [257, 8],
  isExtended: [482, 1],
  realSize: [483, 12],
} as const satisfies Readonly<Record<string, readonly [offset: number, bytes: number]>>;

/** GNU's magic and version in one. */
export const gnuMagic = "ustar  \0";

/** Where a table of segments begins and how many it has: in the header, and in each block after. */
export const segmentTables = {
  header: { at: 386, count: 4, isExtendedAt: 482 },
  more: { at: 0, count: 21, isExtendedAt: 504 },
} as const;

/** Bytes of an offset or of a length in those tables; a segment is one of each. */
export const numberBytes = 12;

/** A plain file: `extents` are its data, the rest of `size` is zeros. */
export interface TarFile {
  readonly name: string;
  readonly size: number;
  /** Sorted, apart from each other, inside the size. */
  readonly extents: readonly Extent[];
}

/** Zeros that fill the last block of `bytes` of data. */
export function paddingBytes(bytes: number): number {
  return (blockBytes - (bytes % blockBytes)) % blockBytes;
}

/** Whether a file's data is all of it: then it needs no table. */
export function isDense({ size, extents }: TarFile): boolean {
  const [only, ...more] = extents;
  if (only === undefined) return size === 0;
  return more.length === 0 && only.offset === 0 && only.length === size;
}

/** The sum that a header must have: its own field counts as spaces. */
export function checksumOf(header: Uint8Array): number {
  const [from, bytes] = fields.checksum;
  return header.reduce((sum, byte, at) => {
    return sum + (at >= from && at < from + bytes ? 0x20 : byte);
  }, 0);
}
