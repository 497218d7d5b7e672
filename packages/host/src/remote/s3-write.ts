import { open } from "node:fs/promises";
import { PartReader } from "./part-reader.ts";
import type { UploadFile, WriteOptions } from "./remote.ts";
import { hashName } from "./s3-address.ts";
import type { S3Door } from "./s3-door.ts";
import { writeParts } from "./s3-parts.ts";

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
    ContentMD5: part.md5.toString("base64"),
    Metadata: { [hashName]: reader.file.sha256 },
  });
  await door.repeat(signal, () => door.client.send(command, { abortSignal: signal }));
  onBytes(part.bytes.length);
}
