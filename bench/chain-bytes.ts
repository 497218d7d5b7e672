import { readFile } from "node:fs/promises";
import { parseSnapshotTag } from "@forkd/api";
import { resolveDataPaths } from "@forkd/host/config/data-paths.ts";
import { identifyProcess } from "@forkd/host/linux/proc.ts";
import { memoryBytesOf } from "@forkd/host/store/manifest.ts";
import { decodeIndex } from "@forkd/host/store/memory-index.ts";
import { type MemoryImage, SnapshotStore } from "@forkd/host/store/snapshots.ts";

/** Whether what a VMM maps is what the links say, one laid over the other. */
export interface Identical {
  readonly identical: boolean;
  /** Mappings that the image costs a VMM, and the bytes in them. */
  readonly runs: number;
  readonly image_bytes: number;
}

interface Run {
  readonly offset: number;
  readonly length: number;
}

/** Reads each snapshot of a chain, the base first, in both ways. Each RAM must fit into memory. */
export async function compareChain(tags: readonly string[]): Promise<Identical[]> {
  const owner = identifyProcess(process.pid);
  if (owner === undefined) throw new Error("/proc does not know this process");
  const paths = resolveDataPaths(process.env, process.getuid?.() ?? 0);
  const store = new SnapshotStore(paths, owner);
  let model: Buffer = Buffer.alloc(0);
  const results: Identical[] = [];
  for (const tag of tags) {
    const { chain, memory, manifest } = await store.open(parseSnapshotTag(tag));
    const link = chain.at(-1) ?? chain[0];
    if (chain.length === 1) model = await readFile(link.memoryFile);
    else if (link.indexFile !== null) {
      const { extents } = decodeIndex(await readFile(link.indexFile), link.indexFile);
      lay(model, await readFile(link.memoryFile), extents);
    }
    const runs = memory.overlay === null ? [] : await readRuns(memory.overlay.extents);
    const mapped = await asMapped(memory, runs);
    results.push({
      identical: mapped.length === memoryBytesOf(manifest) && mapped.equals(model),
      runs: runs.length,
      image_bytes: runs.reduce((sum, { length }) => sum + length, 0),
    });
  }
  return results;
}

async function asMapped({ base, overlay }: MemoryImage, runs: readonly Run[]): Promise<Buffer> {
  const ram = await readFile(base);
  if (overlay !== null) lay(ram, await readFile(overlay.file), runs);
  return ram;
}

function lay(ram: Buffer, over: Buffer, runs: readonly Run[]): void {
  for (const { offset, length } of runs) over.copy(ram, offset, offset, offset + length);
}

/** The table as it lies on disk: pairs of 64 bits. */
async function readRuns(path: string): Promise<Run[]> {
  const table = await readFile(path);
  return Array.from({ length: table.length / 16 }, (_, i) => ({
    offset: Number(table.readBigUInt64LE(i * 16)),
    length: Number(table.readBigUInt64LE(i * 16 + 8)),
  }));
}
