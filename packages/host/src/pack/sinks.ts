import { createHash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import type { Readable, Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { ForkdError } from "@forkd/api";
import { isErrno } from "../lib/atomic.ts";
import type { Filter } from "../lib/exec.ts";
import { undefinedIfMissing } from "../store/files.ts";

/** What a follower reads and hashes at one time, between other turns of the event loop. */
const blockBytes = 256 * 1024;
/** What the compressor takes between two looks at what it has written. */
const lookBytes = 8 * 1024 * 1024;
/** Written bytes that the disk need not have yet: so few are waited for at the end. */
const unsyncedBytesMax = 16 * 1024 * 1024;

/** What came out of the compressor. */
export interface Written {
  /** Of all bytes, hex. */
  readonly sha256: string;
  readonly size_bytes: number;
}

/** Where compressed bytes go. */
export interface Sink {
  /** What the compressor is told of it. */
  readonly args: readonly string[];
  /** Resolves when all bytes are where they should be. */
  readonly drain: (zstd: Filter, signal: AbortSignal) => Promise<Written>;
  /** To be called with the bytes that the compressor took since the last call. */
  readonly took: (bytes: number) => void;
}

/** To whoever reads; throws client_gone when nobody does any more, or the signal's reason. */
export function toStream(out: Writable): Sink {
  const drain: Sink["drain"] = async ({ stdout }, signal) => {
    const hash = createHash("sha256");
    let bytes = 0;
    const count = async function* (stream: Readable): AsyncGenerator<Buffer> {
      for await (const chunk of stream) {
        bytes += chunk.length;
        hash.update(chunk);
        yield chunk;
      }
    };
    await pipeline(stdout, count, out, { signal }).catch((error: unknown) => {
      if (!isErrno(error, "EPIPE")) throw error;
      throw new ForkdError("client_gone", "whoever was reading the pack went away", {
        hint: "read it to its end, or give --out a file",
        cause: error,
      });
    });
    return { sha256: hash.digest("hex"), size_bytes: bytes };
  };
  return { args: ["-c"], drain, took: () => undefined };
}

/**
 * To a new file, which is on the disk when it is drained. The program writes the file itself: its
 * bytes are hashed, and sent to the disk, while it compresses what comes next.
 */
export function toFile(path: string): Sink {
  const follower = new Follower(path);
  let unseen = 0;
  return {
    args: ["-o", path],
    took: (bytes) => {
      unseen += bytes;
      if (unseen < lookBytes) return;
      unseen = 0;
      follower.look();
    },
    drain: async ({ stdout, ended }) => {
      stdout.resume();
      try {
        await ended;
        return await follower.finish();
      } finally {
        await follower.close();
      }
    },
  };
}

/** Reads a file that another program appends to, from its beginning to where it is. */
class Follower {
  readonly #path: string;
  readonly #hash = createHash("sha256");
  readonly #block = Buffer.allocUnsafe(blockBytes);
  #file: FileHandle | undefined;
  #bytes = 0;
  #unsynced = 0;
  #isClosed = false;
  #looking: Promise<void> | undefined;
  #syncing: Promise<void> = Promise.resolve();

  constructor(path: string) {
    this.#path = path;
  }

  /** Takes what is there by now; while that lasts, another look is none. */
  look(): void {
    if (this.#isClosed || this.#looking !== undefined) return;
    const looking = this.#advance().finally(() => {
      this.#looking = undefined;
    });
    // Whoever finishes sees the failure: it reads the same file.
    looking.catch(() => undefined);
    this.#looking = looking;
  }

  /** The file is whole: takes the rest, and resolves when the disk has all of it. */
  async finish(): Promise<Written> {
    await this.#looking;
    await this.#advance();
    await this.#syncing;
    await this.#file?.sync();
    return { sha256: this.#hash.digest("hex"), size_bytes: this.#bytes };
  }

  /** What is still on its way to a compressor that failed makes it look no more. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.allSettled([this.#looking, this.#syncing]);
    await this.#file?.close();
  }

  async #opened(): Promise<FileHandle | undefined> {
    this.#file ??= await open(this.#path, "r").catch(undefinedIfMissing);
    return this.#file;
  }

  async #advance(): Promise<void> {
    const file = await this.#opened();
    if (file === undefined) return;
    for (;;) {
      const { bytesRead } = await file.read(this.#block, 0, blockBytes, this.#bytes);
      if (bytesRead === 0) return;
      this.#hash.update(this.#block.subarray(0, bytesRead));
      this.#bytes += bytesRead;
      this.#unsynced += bytesRead;
      if (this.#unsynced >= unsyncedBytesMax) this.#sync(file);
    }
  }

  /** One after the other. One that failed fails the pack: the next may say that all is well. */
  #sync(file: FileHandle): void {
    this.#unsynced = 0;
    this.#syncing = this.#syncing.then(() => file.datasync());
    this.#syncing.catch(() => undefined);
  }
}
