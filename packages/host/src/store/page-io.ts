import { closeSync, ftruncateSync, openSync, readSync, writeSync } from "node:fs";
import { ForkdError } from "@forkd/api";
import { coalesce, type Extent, pageBytes, type Segment } from "./extents.ts";

/**
 * Reads and writes of guest pages, synchronous: for worker threads only. All buffers are bounded
 * by {@link blockBytes}, whatever the size of the files.
 */

/** Bytes of one read: large enough to keep a disk busy, small enough to stay in a core's cache. */
export const blockBytes = 1024 * 1024;

const zeroPage = Buffer.alloc(pageBytes);

/** Opens, uses and closes a file. */
export function withFile<T>(path: string, flags: string, use: (fd: number) => T): T {
  const fd = openSync(path, flags, 0o600);
  try {
    return use(fd);
  } finally {
    closeSync(fd);
  }
}

/** Where to read, and what to call it in messages. */
export interface Source {
  readonly fd: number;
  readonly path: string;
}

/** Fills `block` from `position` on. Throws snapshot_corrupt when the file ends before. */
export function readExactly({ fd, path }: Source, block: Buffer, position: number): void {
  let filled = 0;
  while (filled < block.length) {
    const count = readSync(fd, block, filled, block.length - filled, position + filled);
    if (count === 0) {
      const message = `${path} is cut off: it ends before byte ${position + block.length}`;
      throw new ForkdError("snapshot_corrupt", message);
    }
    filled += count;
  }
}

export function writeExactly(fd: number, block: Buffer, position: number): void {
  let written = 0;
  while (written < block.length) {
    written += writeSync(fd, block, written, block.length - written, position + written);
  }
}

/** The runs of pages in a block that are not all zeros, as positions in the block. */
export function dataRuns(block: Buffer): Extent[] {
  const pages: Extent[] = [];
  for (let offset = 0; offset < block.length; offset += pageBytes) {
    const length = Math.min(pageBytes, block.length - offset);
    if (zeroPage.compare(block, offset, offset + length, 0, length) !== 0) {
      pages.push({ offset, length });
    }
  }
  return coalesce(pages);
}

/** Cuts extents into pieces of at most a block. */
export function* blocksOf<T extends Extent>(extents: readonly T[]): Generator<T> {
  for (const extent of extents) {
    const stop = extent.offset + extent.length;
    for (let offset = extent.offset; offset < stop; offset += blockBytes) {
      yield { ...extent, offset, length: Math.min(blockBytes, stop - offset) };
    }
  }
}

/** The parts of a file's first `bytes` that are not zeros. */
export function scanData(source: Source, bytes: number): Extent[] {
  const buffer = Buffer.allocUnsafe(blockBytes);
  const runs: Extent[] = [];
  for (const { offset, length } of blocksOf([{ offset: 0, length: bytes }])) {
    const block = buffer.subarray(0, length);
    readExactly(source, block, offset);
    for (const run of dataRuns(block)) {
      runs.push({ offset: offset + run.offset, length: run.length });
    }
  }
  return coalesce(runs);
}

/**
 * Writes what the segments name, from the layers that they name, to the same offsets of a new
 * sparse file of `bytes`. Zeros stay holes. Returns the extents that were written.
 */
export function copySegments(
  segments: readonly Segment[],
  layers: readonly Source[],
  to: { readonly path: string; readonly bytes: number },
): Extent[] {
  const buffer = Buffer.allocUnsafe(blockBytes);
  const written: Extent[] = [];
  withFile(to.path, "wx", (fd) => {
    ftruncateSync(fd, to.bytes);
    for (const { offset, length, layer } of blocksOf(segments)) {
      const source = layers[layer];
      if (source === undefined) throw new ForkdError("internal", `there is no layer ${layer}`);
      const block = buffer.subarray(0, length);
      readExactly(source, block, offset);
      for (const run of dataRuns(block)) {
        writeExactly(fd, block.subarray(run.offset, run.offset + run.length), offset + run.offset);
        written.push({ offset: offset + run.offset, length: run.length });
      }
    }
  });
  return coalesce(written);
}
