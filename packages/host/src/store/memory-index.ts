import { ForkdError } from "@forkd/api";
import {
  coalesce,
  decodeExtents,
  type Extent,
  encodeExtents,
  extentEntryBytes,
  extentsMax,
  pageBytes,
} from "./extents.ts";

/** What one hash is over; docs/store-format.md. */
export const chunkBytes = 1024 * 1024;

const magic = "FORKDIDX";
const indexVersion = 1;
const headerBytes = 40;
const hashBytes = 32;
/** The largest RAM that a snapshot may have; the engines' own bound is lower. */
const memoryBytesMax = 64 * 1024 ** 3;

/** `memory.index`: which bytes of a memory file count, and what they hash to. */
export interface MemoryIndex {
  readonly memoryBytes: number;
  readonly extents: readonly Extent[];
  /** SHA-256 of each chunk that an extent touches, 32 bytes each, by address. */
  readonly hashes: readonly Buffer[];
}

/** Largest size of an index file: what a reader may take into memory. */
export const indexBytesMax =
  headerBytes + extentsMax * extentEntryBytes + (memoryBytesMax / chunkBytes) * hashBytes;

/** A chunk that extents touch, and the parts of them that lie in it. */
export interface Chunk {
  readonly offset: number;
  readonly parts: readonly Extent[];
}

/** The chunks that an index has hashes for, in their order. */
export function* chunksOf(extents: readonly Extent[]): Generator<Chunk> {
  let chunk: { offset: number; parts: Extent[] } | undefined;
  for (const extent of extents) {
    const stop = extent.offset + extent.length;
    for (let offset = extent.offset; offset < stop; ) {
      const chunkOffset = offset - (offset % chunkBytes);
      const length = Math.min(chunkOffset + chunkBytes, stop) - offset;
      if (chunk !== undefined && chunk.offset !== chunkOffset) yield chunk;
      if (chunk?.offset !== chunkOffset) chunk = { offset: chunkOffset, parts: [] };
      chunk.parts.push({ offset, length });
      offset += length;
    }
  }
  if (chunk !== undefined) yield chunk;
}

export function encodeIndex({ memoryBytes, extents, hashes }: MemoryIndex): Buffer {
  const header = Buffer.alloc(headerBytes);
  header.write(magic, 0, "latin1");
  header.writeUInt32LE(indexVersion, 8);
  header.writeUInt32LE(pageBytes, 12);
  header.writeBigUInt64LE(BigInt(memoryBytes), 16);
  header.writeUInt32LE(chunkBytes, 24);
  header.writeUInt32LE(extents.length, 28);
  header.writeUInt32LE(hashes.length, 32);
  return Buffer.concat([header, encodeExtents(extents), ...hashes]);
}

/** Throws snapshot_corrupt that names `path` and what is wrong in it. */
export function decodeIndex(bytes: Buffer, path: string): MemoryIndex {
  const { memoryBytes, extentCount, hashCount } = decodeHeader(bytes, path);
  const hashesAt = headerBytes + extentCount * extentEntryBytes;
  if (bytes.length !== hashesAt + hashCount * hashBytes) {
    throw wrong(path, "its length is not what its header says");
  }
  const extents = decodeExtents(bytes.subarray(headerBytes, hashesAt), { memoryBytes, path });
  if (coalesce(extents).length !== extents.length) throw wrong(path, "two of its extents touch");
  if ([...chunksOf(extents)].length !== hashCount) {
    throw wrong(path, "its hashes are not those of its extents");
  }
  const hashes = Array.from({ length: hashCount }, (_, i) => {
    const offset = hashesAt + i * hashBytes;
    return bytes.subarray(offset, offset + hashBytes);
  });
  return { memoryBytes, extents, hashes };
}

interface Header {
  readonly memoryBytes: number;
  readonly extentCount: number;
  readonly hashCount: number;
}

function decodeHeader(bytes: Buffer, path: string): Header {
  if (bytes.length < headerBytes || bytes.toString("latin1", 0, magic.length) !== magic) {
    throw wrong(path, "it is not an index of guest memory");
  }
  const isKnown =
    bytes.readUInt32LE(8) === indexVersion &&
    bytes.readUInt32LE(12) === pageBytes &&
    bytes.readUInt32LE(24) === chunkBytes &&
    bytes.readUInt32LE(36) === 0;
  if (!isKnown) throw wrong(path, "it is of a version that this forkd does not know");
  const memoryBytes = Number(bytes.readBigUInt64LE(16));
  const isSound = memoryBytes % pageBytes === 0 && memoryBytes <= memoryBytesMax;
  if (!isSound || memoryBytes === 0) throw wrong(path, "its size of RAM is impossible");
  return {
    memoryBytes,
    extentCount: bytes.readUInt32LE(28),
    hashCount: bytes.readUInt32LE(32),
  };
}

function wrong(path: string, what: string): ForkdError {
  return new ForkdError("snapshot_corrupt", `${path}: ${what}`);
}
