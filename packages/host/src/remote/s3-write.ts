import { createHash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import type { CompletedPart } from "@aws-sdk/client-s3";
import { changedWhileSent, type UploadFile, type WriteOptions } from "./remote.ts";
import type { S3Door } from "./s3.ts";

/** What is larger is sent in parts of at least this; {@link partsAtOnce} of them are in memory. */
const partBytesMin = 16 * 1024 * 1024;
/** S3's bound, and that of the stores that follow it. */
const partsMax = 10_000;
const partsAtOnce = 4;
const abortMaxMs = 10_000;

/** Metadata of our objects: what their bytes hash to. */
export const hashName = "forkd-sha256";

/**
 * Writes a file as one object: it is there once all of it has arrived. Each part goes with its MD5,
 * which the store compares, and with its SHA-256 in the request's signature; a part that does not
 * arrive whole is sent again.
 */
export async function writeToS3(
  door: S3Door,
  file: UploadFile,
  options: WriteOptions,
): Promise<void> {
  await using handle = await open(file.path, "r");
  const reader = new PartReader(handle, file);
  if (reader.count === 1) await writeWhole(door, reader, options);
  else await writeParts(door, reader, options);
}

async function writeWhole(
  door: S3Door,
  reader: PartReader,
  { signal, onBytes }: WriteOptions,
): Promise<void> {
  const part = await reader.next();
  if (part === undefined) return;
  const command = new door.sdk.PutObjectCommand({
    ...door.target,
    Body: part.bytes,
    ContentMD5: part.md5,
    Metadata: { [hashName]: reader.file.sha256 },
  });
  await door.repeat(signal, () => door.client.send(command, { abortSignal: signal }));
  onBytes(part.bytes.length);
}

interface Upload {
  readonly Bucket: string;
  readonly Key: string;
  readonly UploadId: string | undefined;
}

async function writeParts(door: S3Door, reader: PartReader, options: WriteOptions): Promise<void> {
  const { signal } = options;
  const begin = new door.sdk.CreateMultipartUploadCommand({
    ...door.target,
    Metadata: { [hashName]: reader.file.sha256 },
  });
  const { UploadId } = await door.repeat(signal, () =>
    door.client.send(begin, { abortSignal: signal }),
  );
  const upload = { ...door.target, UploadId };
  try {
    const parts = await sendParts(door, { upload, reader }, options);
    await complete(door, { upload, parts, file: reader.file }, signal);
  } catch (error) {
    await abort(door, upload);
    throw error;
  }
}

/** Some parts at a time; the first failure stops the others. */
async function sendParts(
  door: S3Door,
  { upload, reader }: { readonly upload: Upload; readonly reader: PartReader },
  { signal, onBytes }: WriteOptions,
): Promise<CompletedPart[]> {
  const stop = new AbortController();
  const either = AbortSignal.any([signal, stop.signal]);
  const sent: CompletedPart[] = [];
  const work = async (): Promise<void> => {
    for (;;) {
      const part = await reader.next();
      if (part === undefined) return;
      sent.push(await sendPart(door, { upload, part }, either));
      onBytes(part.bytes.length);
    }
  };
  const workers = Array.from({ length: Math.min(partsAtOnce, reader.count) }, () =>
    work().catch((error: unknown) => stop.abort(error)),
  );
  await Promise.all(workers);
  either.throwIfAborted();
  return sent.toSorted((a, b) => (a.PartNumber ?? 0) - (b.PartNumber ?? 0));
}

async function sendPart(
  door: S3Door,
  { upload, part }: { readonly upload: Upload; readonly part: Part },
  signal: AbortSignal,
): Promise<CompletedPart> {
  const PartNumber = part.number;
  const body = { Body: part.bytes, ContentMD5: part.md5 };
  const command = new door.sdk.UploadPartCommand({ ...upload, ...body, PartNumber });
  const { ETag } = await door.repeat(signal, () =>
    door.client.send(command, { abortSignal: signal }),
  );
  return { PartNumber, ETag };
}

interface Completion {
  readonly upload: Upload;
  readonly parts: CompletedPart[];
  readonly file: UploadFile;
}

/** When an answer was lost on its way, the second try fails: then the object itself tells. */
async function complete(
  door: S3Door,
  { upload, parts, file }: Completion,
  signal: AbortSignal,
): Promise<void> {
  const command = new door.sdk.CompleteMultipartUploadCommand({
    ...upload,
    MultipartUpload: { Parts: parts },
  });
  try {
    await door.repeat(signal, () => door.client.send(command, { abortSignal: signal }));
  } catch (error) {
    signal.throwIfAborted();
    const facts = await door.stat(signal).catch(() => undefined);
    if (facts?.sizeBytes !== file.sizeBytes || facts.sha256 !== file.sha256) throw error;
  }
}

/** Parts that nobody completes are kept, and paid for, until somebody says otherwise. */
async function abort(door: S3Door, upload: Upload): Promise<void> {
  const command = new door.sdk.AbortMultipartUploadCommand(upload);
  const abortSignal = AbortSignal.timeout(abortMaxMs);
  await door.client.send(command, { abortSignal }).catch(() => undefined);
}

interface Part {
  /** From 1 on. */
  readonly number: number;
  readonly bytes: Buffer;
  /** Base64, as the header has it. */
  readonly md5: string;
}

/**
 * Reads a file part by part, in order, for several readers. The last part is given away only when
 * all of them together hash to what the file should: the store then never gets all of another file.
 */
class PartReader {
  readonly file: UploadFile;
  readonly count: number;
  readonly #handle: FileHandle;
  readonly #partBytes: number;
  readonly #hash = createHash("sha256");
  #next = 1;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(handle: FileHandle, file: UploadFile) {
    this.file = file;
    this.#handle = handle;
    this.#partBytes = Math.max(partBytesMin, Math.ceil(file.sizeBytes / partsMax));
    this.count = Math.ceil(file.sizeBytes / this.#partBytes);
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
    const begin = (number - 1) * this.#partBytes;
    const bytes = Buffer.allocUnsafe(Math.min(this.#partBytes, this.file.sizeBytes - begin));
    const { bytesRead } = await this.#handle.read(bytes, 0, bytes.length, begin);
    this.#hash.update(bytes);
    const isLast = number === this.count;
    const isRight = !isLast || this.#hash.digest("hex") === this.file.sha256;
    if (bytesRead !== bytes.length || !isRight) throw changedWhileSent(this.file);
    return { number, bytes, md5: createHash("md5").update(bytes).digest("base64") };
  }
}
