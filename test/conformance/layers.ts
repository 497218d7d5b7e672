import assert from "node:assert/strict";
import { open, readFile, writeFile } from "node:fs/promises";
import type { MemoryOverlay } from "@forkd/host/engine/engine.ts";

const pageBytes = 4096;

/** Bytes of the RAM, as offsets. */
export interface Extent {
  readonly offset: number;
  readonly length: number;
}

export async function readExtents(path: string): Promise<Extent[]> {
  const table = await readFile(path);
  const at = (index: number): number => Number(table.readBigUInt64LE(index * 8));
  return Array.from({ length: table.length / 16 }, (_, index) => {
    return { offset: at(index * 2), length: at(index * 2 + 1) };
  });
}

export async function writeExtents(path: string, extents: readonly Extent[]): Promise<void> {
  const table = Buffer.alloc(extents.length * 16);
  for (const [index, { offset, length }] of extents.entries()) {
    table.writeBigUInt64LE(BigInt(offset), index * 16);
    table.writeBigUInt64LE(BigInt(length), index * 16 + 8);
  }
  await writeFile(path, table);
}

/** Copies the bytes of extents from one file into another, at the same offsets. */
export async function copyExtents(
  from: string,
  to: string,
  extents: readonly Extent[],
): Promise<void> {
  await using source = await open(from, "r");
  await using target = await open(to, "r+");
  for (const { offset, length } of extents) {
    const { buffer, bytesRead } = await source.read(Buffer.alloc(length), 0, length, offset);
    assert.equal(bytesRead, length, `${from} ends before ${offset + length}`);
    await target.write(buffer, 0, length, offset);
  }
}

/** Creates a sparse file. */
export async function createSparse(path: string, bytes: number): Promise<void> {
  await using handle = await open(path, "wx");
  await handle.truncate(bytes);
}

/** One overlay of two, the second above the first. */
export async function mergeOverlays(
  layers: readonly [MemoryOverlay, MemoryOverlay],
  { to, ramBytes }: { readonly to: MemoryOverlay; readonly ramBytes: number },
): Promise<void> {
  await createSparse(to.file, ramBytes);
  const pages = new Set<number>();
  for (const layer of layers) {
    const extents = await readExtents(layer.extents);
    await copyExtents(layer.file, to.file, extents);
    for (const { offset, length } of extents) {
      for (let at = offset; at < offset + length; at += pageBytes) pages.add(at);
    }
  }
  const sorted = [...pages].sort((a, b) => a - b);
  await writeExtents(to.extents, joinPages(sorted));
}

function joinPages(offsets: readonly number[]): Extent[] {
  const joined: { offset: number; length: number }[] = [];
  for (const offset of offsets) {
    const last = joined.at(-1);
    if (last !== undefined && last.offset + last.length === offset) last.length += pageBytes;
    else joined.push({ offset, length: pageBytes });
  }
  return joined;
}
