import { type FileHandle, open } from "node:fs/promises";
import type { Writable } from "node:stream";
import { ForkdError } from "@forkd/api";
import { isErrno } from "../lib/atomic.ts";
import type { Filter } from "../lib/exec.ts";
import type { Extent } from "../store/extents.ts";
import { blockBytes, blocksOf } from "../store/page-io.ts";
import { manifestName } from "./manifest.ts";
import type { PlannedFile } from "./plan.ts";
import { paddingBytes } from "./tar-format.ts";
import { archiveEnd, encodeHeader } from "./tar-write.ts";

/** Blocks on their way to the compressor: it works on while this process waits for its turn. */
const buffersMax = 8;

/** What goes into an archive, and who is told of it. */
export interface ArchiveOrder {
  /** The text of the first member. */
  readonly manifest: Buffer;
  readonly files: readonly PlannedFile[];
  readonly signal: AbortSignal;
  readonly report: (bytes: number) => void;
}

/**
 * Writes the tar of a pack to a program and ends its input. Throws snapshot_corrupt for a file that
 * has become shorter, what the program failed of, or the signal's reason.
 */
export async function writeArchive({ stdin, ended }: Filter, order: ArchiveOrder): Promise<void> {
  try {
    const { manifest } = order;
    const size = manifest.length;
    const extents = [{ offset: 0, length: size }];
    await put(stdin, encodeHeader({ name: manifestName, size, extents }));
    await put(stdin, Buffer.concat([manifest, Buffer.alloc(paddingBytes(size))]));
    const buffers = Array.from({ length: buffersMax }, () => Buffer.allocUnsafe(blockBytes));
    for (const planned of order.files) {
      if (planned.file.same_as !== undefined) continue;
      await writeFile(stdin, planned, { ...order, buffers });
    }
    await put(stdin, archiveEnd);
    stdin.end();
  } catch (error) {
    // A program that has ended says why better than the pipe to it does.
    if (isErrno(error, "EPIPE") || isErrno(error, "ERR_STREAM_DESTROYED")) await ended;
    throw error;
  }
}

async function writeFile(
  out: Writable,
  { file, source, extents }: PlannedFile,
  { signal, report, buffers }: ArchiveOrder & { readonly buffers: readonly Buffer[] },
): Promise<void> {
  await put(out, encodeHeader({ name: file.path, size: file.size, extents }));
  await using handle = await open(source, "r");
  const writing: Promise<void>[] = [];
  let turn = 0;
  for (const group of groupsOf(extents)) {
    signal.throwIfAborted();
    // A buffer is used again once what it held has left; meanwhile the others are on their way.
    await writing[turn];
    const buffer = buffers[turn] ?? Buffer.allocUnsafe(blockBytes);
    const block = await readGroup({ handle, source }, group, buffer);
    const sent = put(out, block);
    sent.catch(() => undefined);
    writing[turn] = sent;
    turn = (turn + 1) % buffers.length;
    report(block.length);
  }
  await Promise.all(writing);
  await put(out, Buffer.alloc(paddingBytes(file.stored_bytes)));
}

/** Neighbours that one read of a block covers, gaps and all. */
function* groupsOf(extents: readonly Extent[]): Generator<readonly Extent[]> {
  let group: Extent[] = [];
  for (const piece of blocksOf(extents)) {
    const first = group[0] ?? piece;
    if (piece.offset + piece.length - first.offset > blockBytes) {
      yield group;
      group = [];
    }
    group.push(piece);
  }
  if (group.length > 0) yield group;
}

/** The bytes of a group, one behind the other, in the buffer. */
async function readGroup(
  { handle, source }: { readonly handle: FileHandle; readonly source: string },
  group: readonly Extent[],
  buffer: Buffer,
): Promise<Buffer> {
  const from = group[0]?.offset ?? 0;
  const last = group.at(-1) ?? { offset: from, length: 0 };
  const bytes = last.offset + last.length - from;
  for (let read = 0; read < bytes; ) {
    const { bytesRead } = await handle.read(buffer, read, bytes - read, from + read);
    if (bytesRead === 0) throw new ForkdError("snapshot_corrupt", `${source} has become shorter`);
    read += bytesRead;
  }
  let filled = 0;
  for (const { offset, length } of group) {
    buffer.copyWithin(filled, offset - from, offset - from + length);
    filled += length;
  }
  return buffer.subarray(0, filled);
}

/** Resolves when the bytes have left the buffer, which may be used again then. */
function put(out: Writable, bytes: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    out.write(bytes, (error) => (error ? reject(error) : resolve()));
  });
}
