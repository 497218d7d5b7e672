import type { CompletedPart } from "@aws-sdk/client-s3";
import { ForkdError } from "@forkd/api";
import type { Part, PartReader } from "./part-reader.ts";
import type { UploadFile, WriteOptions } from "./remote.ts";
import { hashName } from "./s3-address.ts";
import type { S3Door } from "./s3-door.ts";
import type { UploadShape } from "./unfinished-upload.ts";

const partsAtOnce = 4;
const abortMaxMs = 10_000;

interface Upload {
  readonly Bucket: string;
  readonly Key: string;
  readonly UploadId: string | undefined;
}

/** An upload that was begun, and what it has already: by number, the entity tags of its parts. */
interface Begun {
  readonly upload: Upload;
  readonly there: ReadonlyMap<number, string>;
  /** Whether another run would find it. */
  readonly isRemembered: boolean;
}

/**
 * Sends a file in parts, of which those that an earlier run has brought are not sent again. What
 * the network, or a signal, ends may go on in another run; what is refused is removed.
 */
export async function writeParts(
  door: S3Door,
  reader: PartReader,
  options: WriteOptions,
): Promise<void> {
  const { signal } = options;
  const begun = (await resume(door, reader, signal)) ?? (await begin(door, reader, signal));
  const { upload } = begun;
  try {
    const parts = await sendParts(door, { begun, reader }, options);
    await complete(door, { upload, parts, file: reader.file }, signal);
  } catch (error) {
    if (!begun.isRemembered || !mayGoOn(error, signal)) await giveUp(door, upload);
    throw error;
  }
  await door.unfinished?.forget();
}

function mayGoOn(error: unknown, signal: AbortSignal): boolean {
  const isOfNetwork = error instanceof ForkdError && error.code === "remote_unreachable";
  return signal.aborted || isOfNetwork;
}

function shapeOf({ file, partBytes }: PartReader): UploadShape {
  return { sha256: file.sha256, sizeBytes: file.sizeBytes, partBytes };
}

async function begin(door: S3Door, reader: PartReader, signal: AbortSignal): Promise<Begun> {
  const command = new door.sdk.CreateMultipartUploadCommand({
    ...door.target,
    Metadata: { [hashName]: reader.file.sha256 },
  });
  const { UploadId } = await door.repeat(signal, () =>
    door.client.send(command, { abortSignal: signal }),
  );
  const isRemembered = UploadId !== undefined && (await remember(door, UploadId, shapeOf(reader)));
  return { upload: { ...door.target, UploadId }, there: new Map(), isRemembered };
}

/** A record that cannot be written is no reason not to send. */
async function remember(door: S3Door, id: string, shape: UploadShape): Promise<boolean> {
  if (door.unfinished === null) return false;
  return await door.unfinished.remember(id, shape).then(
    () => true,
    () => false,
  );
}

/** Undefined when there is nothing to go on with. */
async function resume(
  door: S3Door,
  reader: PartReader,
  signal: AbortSignal,
): Promise<Begun | undefined> {
  const known = await door.unfinished?.known(shapeOf(reader));
  if (known === undefined) return undefined;
  const upload = { ...door.target, UploadId: known.id };
  if (!known.isSame) {
    await giveUp(door, upload);
    return undefined;
  }
  try {
    const there = await listParts(door, upload, { signal, partsMax: reader.count });
    return { upload, there, isRemembered: true };
  } catch (error) {
    if (mayGoOn(error, signal)) throw error;
    // Completed, removed by whoever pays for the store, or not ours to list: it begins anew.
    await giveUp(door, upload);
    return undefined;
  }
}

async function listParts(
  door: S3Door,
  upload: Upload,
  { signal, partsMax }: { readonly signal: AbortSignal; readonly partsMax: number },
): Promise<Map<number, string>> {
  const there = new Map<number, string>();
  let marker: string | undefined;
  do {
    const page = { ...upload, ...(marker !== undefined && { PartNumberMarker: marker }) };
    const command = new door.sdk.ListPartsCommand(page);
    const answer = await door.repeat(signal, () =>
      door.client.send(command, { abortSignal: signal }),
    );
    for (const { PartNumber, ETag } of answer.Parts ?? []) {
      if (PartNumber !== undefined && ETag !== undefined) there.set(PartNumber, ETag);
    }
    const next = answer.IsTruncated === true ? answer.NextPartNumberMarker : undefined;
    // A store that repeats itself would keep us here for good.
    marker = next === marker || there.size > partsMax ? undefined : next;
  } while (marker !== undefined);
  return there;
}

/** Some parts at a time; the first failure stops the others. */
async function sendParts(
  door: S3Door,
  { begun, reader }: { readonly begun: Begun; readonly reader: PartReader },
  { signal, onBytes }: WriteOptions,
): Promise<CompletedPart[]> {
  const stop = new AbortController();
  const either = AbortSignal.any([signal, stop.signal]);
  const sent: CompletedPart[] = [];
  const work = async (): Promise<void> => {
    for (;;) {
      either.throwIfAborted();
      const part = await reader.next();
      if (part === undefined) return;
      sent.push(partThere(begun, part) ?? (await sendPart(door, begun, { part, signal: either })));
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

/**
 * A part that an earlier run has brought: its entity tag is its MD5. Where a store makes others
 * (an encrypted bucket), the part is sent again.
 */
function partThere({ there }: Begun, { number, md5 }: Part): CompletedPart | undefined {
  const tag = there.get(number);
  return tag === `"${md5.toString("hex")}"` ? { PartNumber: number, ETag: tag } : undefined;
}

async function sendPart(
  door: S3Door,
  { upload }: Begun,
  { part, signal }: { readonly part: Part; readonly signal: AbortSignal },
): Promise<CompletedPart> {
  const PartNumber = part.number;
  const body = { Body: part.bytes, ContentMD5: part.md5.toString("base64") };
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
async function giveUp(door: S3Door, upload: Upload): Promise<void> {
  const command = new door.sdk.AbortMultipartUploadCommand(upload);
  const abortSignal = AbortSignal.timeout(abortMaxMs);
  await door.client.send(command, { abortSignal }).catch(() => undefined);
  await door.unfinished?.forget();
}
