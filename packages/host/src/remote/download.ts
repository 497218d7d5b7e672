import { createWriteStream } from "node:fs";
import { statfs } from "node:fs/promises";
import { dirname } from "node:path";
import { Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { ForkdError, limits, toForkdError } from "@forkd/api";
import { isErrno } from "../lib/atomic.ts";
import { sha256File } from "../lib/hash.ts";
import { unreachable } from "./http-failure.ts";
import type { PartialFile } from "./partials.ts";
import type { RemoteObject, RemoteRead } from "./remote.ts";
import { Patience, type RetryOptions } from "./retry.ts";

/** Space left alone, so that running sandboxes can go on. */
const freeBytesMin = 256 * 1024 * 1024;

export interface DownloadOrder {
  readonly from: RemoteObject;
  readonly partial: PartialFile;
  /** What the bytes must hash to, hex; null: nobody said. */
  readonly sha256: string | null;
  readonly bytesMax: number;
  readonly retry: RetryOptions;
  /** `totalBytes` is null when the remote does not say. */
  readonly onProgress: (doneBytes: number, totalBytes: number | null) => void;
  readonly signal: AbortSignal;
}

export interface Downloaded {
  readonly sizeBytes: number;
  /** Of the file, hex; hashed after the last byte was written. */
  readonly sha256: string;
  /** Whether somebody had said what it must hash to. */
  readonly isProven: boolean;
  /** Bytes that an earlier run had brought. */
  readonly resumedBytes: number;
}

/**
 * Brings an object into its partial file, which stays until the caller discards it: what is there
 * afterwards is whole and right. Goes on where it, or an earlier run, was cut off, and begins anew
 * when the object is another by now.
 *
 * Throws what a remote throws; remote_corrupt when the bytes do not hash to what they should, also
 * after they were all fetched in one go; disk_full.
 */
export async function download(order: DownloadOrder): Promise<Downloaded> {
  const first = await bring(order);
  try {
    return await settle(order, first);
  } catch (error) {
    if (!(error instanceof ForkdError) || error.code !== "remote_corrupt") throw error;
    if (!first.isJoined) throw error;
    // Parts of two fetches may not belong together, whatever the server said of them.
    order.retry.onRetry(error, 0);
    return await settle(order, await bring(order));
  }
}

/** What a download came to before it was hashed. */
interface Brought {
  readonly sizeBytes: number;
  readonly resumedBytes: number;
  /** Whether it was put together from more than one body. */
  readonly isJoined: boolean;
  readonly claimed: string | null;
}

async function bring(order: DownloadOrder): Promise<Brought> {
  const { partial, signal, from } = order;
  const patience = new Patience(order.retry);
  const isHashKnown = order.sha256 !== null;
  let { offset: resumedBytes } = await partial.resumePoint(isHashKnown);
  // What is fetched again and again, each time from its beginning, is no progress.
  let mostBytes = resumedBytes;
  for (;;) {
    const begin = await partial.resumePoint(isHashKnown);
    try {
      const read = await from.read(begin, signal);
      const isJoined = read.offset > 0;
      if (!isJoined) resumedBytes = 0;
      const sizeBytes = await append(order, read);
      return { sizeBytes, resumedBytes, isJoined, claimed: read.sha256 };
    } catch (error) {
      const { offset } = await partial.resumePoint(isHashKnown);
      if (offset > mostBytes) patience.reset();
      mostBytes = Math.max(mostBytes, offset);
      await patience.failed(error, signal);
    }
  }
}

/** Writes one body behind what is there. Answers the size of the whole. */
async function append(order: DownloadOrder, read: RemoteRead): Promise<number> {
  const { partial, from, signal } = order;
  const { body, offset, sizeBytes, version } = read;
  try {
    await requireRoom(order, read);
    await partial.begin(offset, version);
  } catch (error) {
    body.destroy();
    throw error;
  }
  const counter = new Counter(order, read);
  const target = createWriteStream(partial.file, {
    flags: offset === 0 ? "w" : "r+",
    mode: 0o600,
    start: offset,
  });
  try {
    await pipeline(body, counter, target, { signal });
  } catch (error) {
    signal.throwIfAborted();
    throw isOwn(error) ? error : unreachable(`${from.name} was cut off: ${reasonOf(error)}`, error);
  }
  if (sizeBytes === null || counter.done === sizeBytes) return counter.done;
  throw unreachable(`${from.name} ended after ${counter.done} of ${sizeBytes} bytes`);
}

/** Counts what comes and stops what is too much. */
class Counter extends Transform {
  done: number;
  readonly #order: DownloadOrder;
  readonly #sizeBytes: number | null;

  constructor(order: DownloadOrder, { offset, sizeBytes }: RemoteRead) {
    super();
    this.#order = order;
    this.#sizeBytes = sizeBytes;
    this.done = offset;
  }

  override _transform(
    chunk: Buffer,
    _encoding: BufferEncoding,
    done: (error: Error | null, chunk?: Buffer) => void,
  ): void {
    this.done += chunk.length;
    this.#order.onProgress(this.done, this.#sizeBytes);
    if (this.done <= this.#order.bytesMax) done(null, chunk);
    else done(tooLarge(this.#order));
  }
}

function tooLarge({ from, bytesMax }: DownloadOrder): ForkdError {
  return new ForkdError("remote_corrupt", `${from.name} is over ${bytesMax} bytes`, {
    hint: bytesMax === limits.transferBytesMax ? "make smaller packs" : "the index says less",
  });
}

async function requireRoom(order: DownloadOrder, { sizeBytes, offset }: RemoteRead): Promise<void> {
  if (sizeBytes === null) return;
  if (sizeBytes > order.bytesMax) throw tooLarge(order);
  const dir = dirname(order.partial.file);
  const { bavail, bsize } = await statfs(dir);
  if (bavail * bsize - (sizeBytes - offset) >= freeBytesMin) return;
  const message = `the file system of ${dir} has no room for the ${sizeBytes} bytes of the pack`;
  throw new ForkdError("disk_full", message);
}

/** Ours, or the disk's; what else fails is the connection. */
function isOwn(error: unknown): boolean {
  return toForkdError(error).code !== "internal" || isErrno(error, "EIO");
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

async function settle(order: DownloadOrder, brought: Brought): Promise<Downloaded> {
  const { partial, from } = order;
  const found = await sha256File(partial.file);
  const wanted = order.sha256 ?? brought.claimed;
  if (wanted !== null && wanted !== found) {
    await partial.discard();
    throw new ForkdError("remote_corrupt", `${from.name} hashes to ${found}, not to ${wanted}`);
  }
  const { sizeBytes, resumedBytes } = brought;
  return { sizeBytes, sha256: found, isProven: wanted !== null, resumedBytes };
}
