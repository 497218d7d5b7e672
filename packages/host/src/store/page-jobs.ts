import { createHash } from "node:crypto";
import { closeSync, fstatSync, openSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { ForkdError } from "@forkd/api";
import { mappedFilesUnder } from "../linux/mapped-files.ts";
import {
  coalesce,
  coveredBytes,
  decodeExtents,
  type Extent,
  encodeExtents,
  extentEntryBytes,
  extentsMax,
  fillGaps,
  overlay,
  type RunBounds,
  type Segment,
} from "./extents.ts";
import {
  type Chunk,
  chunkBytes,
  chunksOf,
  decodeIndex,
  encodeIndex,
  indexBytesMax,
  type MemoryIndex,
} from "./memory-index.ts";
import {
  blockBytes,
  blocksOf,
  copySegments,
  dataRuns,
  readExactly,
  type Source,
  scanData,
  withFile,
} from "./page-io.ts";

/** The work on guest memory that is too heavy for the event loop; each runs in a worker thread. */

/** A memory file, and where the table of the bytes that count in it is. */
export interface Layer {
  readonly file: string;
  readonly extents:
    | { readonly index: string }
    | { readonly table: string }
    /** All of it, zeros left out: a base that has no index. */
    | "scan";
}

/** Makes the index of a memory file that is complete. */
export interface IndexJob {
  readonly layer: Layer;
  readonly memoryBytes: number;
  readonly to: string;
}

export interface IndexFacts {
  /** Of the index file. */
  readonly size: number;
  readonly sha256: string;
  readonly extents: number;
  /** Sum of the extents. */
  readonly dataBytes: number;
}

/** Checks a memory file against its index, and the index against its own hash. */
export interface VerifyJob {
  readonly file: string;
  readonly index: string;
  readonly indexSha256: string;
  readonly memoryBytes: number;
  /** Whether bytes outside the extents are guest memory too, and must be zeros. */
  readonly isBase: boolean;
}

/** Puts links together over a base. */
export interface ComposeJob {
  readonly base: string;
  /** Oldest first. */
  readonly links: readonly Layer[];
  readonly memoryBytes: number;
  readonly bounds: RunBounds;
  /** The table of the result. */
  readonly extentsFile: string;
  /** Not written when there is one link whose own file will do. */
  readonly imageFile: string;
}

export interface ComposeFacts {
  readonly runs: number;
  readonly dataBytes: number;
  readonly isCopied: boolean;
}

/** Writes the RAM that layers, oldest first, make together, as one sparse file with its index. */
export interface FlattenJob {
  readonly layers: readonly Layer[];
  readonly memoryBytes: number;
  readonly file: string;
  readonly index: string;
}

/** Hashes the parts of a file that an encoded table names, the table itself before them. */
export interface HashExtentsJob {
  readonly file: string;
  readonly table: Uint8Array;
}

/** Each job by its name: what goes in and what comes out. */
export interface PageJobs {
  readonly index: { readonly input: IndexJob; readonly output: IndexFacts };
  readonly verify: { readonly input: VerifyJob; readonly output: null };
  readonly compose: { readonly input: ComposeJob; readonly output: ComposeFacts };
  readonly flatten: { readonly input: FlattenJob; readonly output: IndexFacts };
  /** The SHA-256 of a table of extents and of what they hold, hex. */
  readonly hashExtents: { readonly input: HashExtentsJob; readonly output: string };
  /** The SHA-256 of a file, hex. */
  readonly hash: { readonly input: { readonly file: string }; readonly output: string };
  /** The files under the directories that some process has mapped. */
  readonly mapped: {
    readonly input: { readonly dirs: readonly string[] };
    readonly output: readonly string[];
  };
}

export type PageJobName = keyof PageJobs;

export const pageJobs: {
  readonly [N in PageJobName]: (input: PageJobs[N]["input"]) => PageJobs[N]["output"];
} = {
  index: (job) =>
    withFile(job.layer.file, "r", (fd) => {
      const source = { fd, path: job.layer.file };
      const extents = coalesce(extentsOf(source, job.layer, job.memoryBytes));
      return writeIndex({ source, extents, memoryBytes: job.memoryBytes, to: job.to });
    }),
  verify,
  compose,
  flatten,
  hashExtents,
  mapped: ({ dirs }) => [...mappedFilesUnder(dirs)],
  hash: ({ file }) => {
    const hash = createHash("sha256");
    const buffer = Buffer.allocUnsafe(blockBytes);
    withFile(file, "r", (fd) => {
      const { size } = fstatSync(fd);
      for (let offset = 0; offset < size; offset += blockBytes) {
        const block = buffer.subarray(0, Math.min(blockBytes, size - offset));
        readExactly({ fd, path: file }, block, offset);
        hash.update(block);
      }
    });
    return hash.digest("hex");
  },
};

function extentsOf(source: Source, layer: Layer, memoryBytes: number): readonly Extent[] {
  if (layer.extents === "scan") return scanData(source, memoryBytes);
  if ("index" in layer.extents) return readIndex(layer.extents.index).index.extents;
  const path = layer.extents.table;
  return decodeExtents(readBounded(path, extentsMax * extentEntryBytes), { memoryBytes, path });
}

function readBounded(path: string, bytesMax: number): Buffer {
  const { size } = statSync(path);
  if (size <= bytesMax) return readFileSync(path);
  throw new ForkdError("snapshot_corrupt", `${path} is larger than ${bytesMax} bytes`);
}

function readIndex(path: string): { readonly index: MemoryIndex; readonly sha256: string } {
  const bytes = readBounded(path, indexBytesMax);
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  return { index: decodeIndex(bytes, path), sha256 };
}

function hashChunk(source: Source, { parts }: Chunk, buffer: Buffer): Buffer {
  const hash = createHash("sha256");
  for (const { offset, length } of parts) {
    const block = buffer.subarray(0, length);
    readExactly(source, block, offset);
    hash.update(block);
  }
  return hash.digest();
}

function hashExtents({ file, table }: HashExtentsJob): string {
  const bytes = Buffer.from(table);
  const hash = createHash("sha256").update(bytes);
  const buffer = Buffer.allocUnsafe(blockBytes);
  withFile(file, "r", (fd) => {
    const extents = decodeExtents(bytes, { memoryBytes: fstatSync(fd).size, path: file });
    for (const { offset, length } of blocksOf(extents)) {
      const block = buffer.subarray(0, length);
      readExactly({ fd, path: file }, block, offset);
      hash.update(block);
    }
  });
  return hash.digest("hex");
}

interface IndexOrder {
  readonly source: Source;
  readonly extents: readonly Extent[];
  readonly memoryBytes: number;
  readonly to: string;
}

function writeIndex({ source, extents, memoryBytes, to }: IndexOrder): IndexFacts {
  const buffer = Buffer.allocUnsafe(chunkBytes);
  const hashes = [...chunksOf(extents)].map((chunk) => hashChunk(source, chunk, buffer));
  const bytes = encodeIndex({ memoryBytes, extents, hashes });
  writeFileSync(to, bytes, { flag: "wx", mode: 0o600 });
  return {
    size: bytes.length,
    sha256: createHash("sha256").update(bytes).digest("hex"),
    extents: extents.length,
    dataBytes: coveredBytes(extents),
  };
}

function verify(job: VerifyJob): null {
  const { index, sha256 } = readIndex(job.index);
  if (sha256 !== job.indexSha256 || index.memoryBytes !== job.memoryBytes) {
    throw damaged(job.index, "it is not the index that the manifest names");
  }
  withFile(job.file, "r", (fd) => {
    const source = { fd, path: job.file };
    verifyChunks(source, index);
    if (job.isBase) verifyZeros(source, index);
  });
  return null;
}

function verifyChunks(source: Source, index: MemoryIndex): void {
  const buffer = Buffer.allocUnsafe(chunkBytes);
  let i = 0;
  for (const chunk of chunksOf(index.extents)) {
    const expected = index.hashes[i];
    if (expected === undefined || !hashChunk(source, chunk, buffer).equals(expected)) {
      throw damaged(source.path, `chunk ${hex(chunk.offset)} is not what was written`);
    }
    i += 1;
  }
}

/** Between its extents a base is zeros; it is mapped whole, so that must be so. */
function verifyZeros(source: Source, { extents, memoryBytes }: MemoryIndex): void {
  const buffer = Buffer.allocUnsafe(blockBytes);
  let from = 0;
  for (const { offset, length } of [...extents, { offset: memoryBytes, length: 0 }]) {
    for (let at = from; at < offset; at += blockBytes) {
      const block = buffer.subarray(0, Math.min(blockBytes, offset - at));
      readExactly(source, block, at);
      const [run] = dataRuns(block);
      if (run === undefined) continue;
      const chunk = at + run.offset - ((at + run.offset) % chunkBytes);
      throw damaged(source.path, `chunk ${hex(chunk)} has bytes where nothing was written`);
    }
    from = offset + length;
  }
}

const hex = (address: number): string => `0x${address.toString(16)}`;

function damaged(path: string, what: string): ForkdError {
  return new ForkdError("snapshot_corrupt", `${path} is damaged: ${what}`);
}

/** Opens every layer's file for the time of `use`; layer N of the segments is source N. */
function withLayers<T>(files: readonly string[], use: (sources: readonly Source[]) => T): T {
  const sources: Source[] = [];
  try {
    for (const path of files) sources.push({ fd: openSync(path, "r"), path });
    return use(sources);
  } finally {
    for (const { fd } of sources) closeSync(fd);
  }
}

/** The newest bytes of every address: layer numbers count from `first`. */
function stack(sources: readonly Source[], layers: readonly Layer[], memoryBytes: number) {
  let segments: Segment[] = [];
  layers.forEach((layer, i) => {
    const source = sources[i];
    if (source === undefined) throw new ForkdError("internal", `layer ${i} is not open`);
    const extents = extentsOf(source, layer, memoryBytes);
    segments = overlay(
      segments,
      extents.map((extent) => ({ ...extent, layer: i })),
    );
  });
  return segments;
}

function compose(job: ComposeJob): ComposeFacts {
  const { links, memoryBytes, bounds } = job;
  const files = [...links.map(({ file }) => file), job.base];
  return withLayers(files, (sources) => {
    const segments = stack(sources, links, memoryBytes);
    const filled = fillGaps(segments, bounds, links.length);
    const runs = coalesce(filled);
    const isCopied = links.length > 1 || filled.length !== segments.length;
    if (isCopied) copySegments(filled, sources, { path: job.imageFile, bytes: memoryBytes });
    writeFileSync(job.extentsFile, encodeExtents(runs), { flag: "wx", mode: 0o600 });
    return { runs: runs.length, dataBytes: coveredBytes(runs), isCopied };
  });
}

function flatten(job: FlattenJob): IndexFacts {
  const { layers, memoryBytes, file } = job;
  const sourceFiles = layers.map((layer) => layer.file);
  const extents = withLayers(sourceFiles, (sources) =>
    copySegments(stack(sources, layers, memoryBytes), sources, { path: file, bytes: memoryBytes }),
  );
  return withFile(file, "r", (fd) =>
    writeIndex({ source: { fd, path: file }, extents, memoryBytes, to: job.index }),
  );
}
