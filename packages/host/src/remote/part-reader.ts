import { createHash } from "node:crypto";
import type { FileHandle } from "node:fs/promises";
import { changedWhileSent, type UploadFile } from "./remote.ts";

/** What is larger is sent in parts of at least this; a few of them are in memory. */
const partBytesMin = 16 * 1024 * 1024;
/** S3's bound, and that of the stores that follow it. */
const partsMax = 10_000;

/** A part of a file, as it is sent. */
export interface Part {
  /** From 1 on. */
  readonly number: number;
  readonly bytes: Buffer;
  /** What the store compares: base64 in a header, hex in an entity tag. */
  readonly md5: Buffer;
}

/**
 * Reads a file part by part, in order, for several readers. The last part is given away only when
 * all of them together hash to what the file should: the store then never gets all of another file.
 */
export class PartReader {
  readonly file: UploadFile;
  readonly count: number;
  readonly partBytes: number;
  readonly #handle: FileHandle;
  readonly #hash = createHash("sha256");
  #next = 1;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(handle: FileHandle, file: UploadFile) {
    this.file = file;
    this.#handle = handle;
    this.partBytes = Math.max(partBytesMin, Math.ceil(file.sizeBytes / partsMax));
    this.count = Math.ceil(file.sizeBytes / this.partBytes);
  }

  /** Undefined after the last one. Throws remote_corrupt when the file is not as it should be. */
  next(): Promise<Part | undefined> {
    const part = this.#turn.then(() => this.#read());
    this.#turn = part.catch(() => undefined);
    return part;
  }

  async #read(): Promise<Part | undefined> {
    const number = this.#next;
    if (number > this.count) return undefined;
    this.#next += 1;
    const begin = (number - 1) * this.partBytes;
    const bytes = Buffer.allocUnsafe(Math.min(this.partBytes, this.file.sizeBytes - begin));
    const { bytesRead } = await this.#handle.read(bytes, 0, bytes.length, begin);
    this.#hash.update(bytes);
    const isLast = number === this.count;
    const isRight = !isLast || this.#hash.digest("hex") === this.file.sha256;
    if (bytesRead !== bytes.length || !isRight) throw changedWhileSent(this.file);
    return { number, bytes, md5: createHash("md5").update(bytes).digest() };
  }
}
