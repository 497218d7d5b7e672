import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { ForkdError, toForkdError } from "@forkd/api";
import { isErrno } from "../lib/atomic.ts";
import { type Filter, startFilter } from "../lib/exec.ts";
import { type AnyManifest, manifestBytesMax, manifestName, parsePackManifest } from "./manifest.ts";
import type { UnpackOrder } from "./orders.ts";
import { invalid, PackReader } from "./tar-read.ts";

/** The largest pack from a slow disk or network; what takes longer hangs. */
const unpackTimeoutMs = 24 * 60 * 60_000;
/** The largest window that a pack may ask the decompressor to keep: zstd's own default. */
const windowMax = "128MB";

/** What decompresses standard input. */
export const unzipArgv = ["zstd", "-q", "-d", "-c", `--memory=${windowMax}`] as const;

/** Takes all files of the archive after its manifest; returns when the archive has ended. */
export type TakeArchive<T> = (manifest: AnyManifest, archive: Archive) => Promise<T>;

export interface Archive {
  readonly reader: PackReader;
  readonly signal: AbortSignal;
}

/**
 * Decompresses a pack and hands it to `take`. When this returns, the archive was whole and its
 * bytes were those that the order names. Throws pack_invalid for anything that is wrong with it,
 * what `take` throws, tool_missing without zstd, or the signal's reason.
 */
export async function readPack<T>(order: UnpackOrder, take: TakeArchive<T>): Promise<T> {
  const failed = new AbortController();
  const signals = [failed.signal, ...(order.signal === undefined ? [] : [order.signal])];
  const signal = AbortSignal.any(signals);
  const input = sourceOf(order);
  const zstd = startFilter(unzipArgv, { timeoutMs: unpackTimeoutMs, signal });
  const hash = createHash("sha256");
  const count = async function* (stream: Readable): AsyncGenerator<Buffer> {
    for await (const chunk of stream) {
      hash.update(chunk);
      yield chunk;
    }
  };
  const feeding = pipeline(input, count, zstd.stdin, { signal }).catch(orFailureOf(zstd));
  const taking = takeFrom(zstd, (manifest, reader) => take(manifest, { reader, signal }));
  const ended = zstd.ended.catch((error: unknown) => Promise.reject(unreadable(error)));
  try {
    const [taken] = await Promise.all([taking, feeding, ended]);
    requireHash(order.sha256, hash.digest("hex"));
    return taken;
  } catch (error) {
    failed.abort(error);
    await Promise.allSettled([taking, feeding, ended]);
    throw order.signal?.aborted === true ? order.signal.reason : error;
  } finally {
    input.destroy();
  }
}

function sourceOf({ from }: UnpackOrder): Readable {
  return "stream" in from ? from.stream : createReadStream(from.file, { highWaterMark: 1 << 18 });
}

/** A program that has ended says why better than the pipe to it does. */
function orFailureOf(zstd: Filter): (error: unknown) => Promise<never> {
  return async (error) => {
    const isPipe = isErrno(error, "EPIPE") || isErrno(error, "ERR_STREAM_PREMATURE_CLOSE");
    if (isPipe) await zstd.ended.catch((reason: unknown) => Promise.reject(unreadable(reason)));
    if (isErrno(error, "ENOENT") || isErrno(error, "EISDIR")) {
      throw new ForkdError("bad_request", "there is no such pack", {
        hint: "name a file that exists, or - for standard input",
        cause: error,
      });
    }
    throw error;
  };
}

/** The decompressor's own failure is the pack's. */
function unreadable(error: unknown): unknown {
  const problem = toForkdError(error);
  if (problem.code !== "tool_failed") return error;
  return invalid(`the pack is damaged or is none: ${problem.message}`, error);
}

async function takeFrom<T>(
  zstd: Filter,
  take: (manifest: AnyManifest, reader: PackReader) => Promise<T>,
): Promise<T> {
  const reader = new PackReader(zstd.stdout);
  try {
    return await take(parsePackManifest(await readManifestMember(reader)), reader);
  } catch (error) {
    const isCut = error instanceof ForkdError && error.code === "pack_invalid";
    if (isCut && zstd.stdout.readableEnded) {
      await zstd.ended.catch((reason: unknown) => Promise.reject(unreadable(reason)));
    }
    throw error;
  }
}

/** It must come first: nothing is taken before it is known what may come. */
async function readManifestMember(reader: PackReader): Promise<string> {
  const file = await reader.next();
  if (file?.name !== manifestName || file.size > manifestBytesMax) {
    throw invalid(`a pack begins with a ${manifestName} of at most ${manifestBytesMax} bytes`);
  }
  const text = Buffer.alloc(file.size);
  await reader.data(file, async (piece, offset) => void piece.copy(text, offset));
  return text.toString("utf8");
}

function requireHash(expected: string | null, actual: string): void {
  if (expected === null || expected === actual) return;
  throw invalid(`the pack hashes to ${actual}, not to ${expected}`);
}
