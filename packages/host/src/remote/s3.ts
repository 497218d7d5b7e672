import type { RemoteObject } from "./remote.ts";
import type { S3Address } from "./s3-address.ts";
import { S3Door, type S3Options } from "./s3-door.ts";
import { writeToS3 } from "./s3-write.ts";

/**
 * An object of S3 or of a store that speaks its protocol (R2, Google's interoperability, MinIO).
 * Credentials, region and endpoint come from where AWS's own programs take them.
 */
export async function s3Object(address: S3Address, options: S3Options): Promise<RemoteObject> {
  const sdk = await import("@aws-sdk/client-s3");
  const door = new S3Door(sdk, address, options);
  return {
    name: door.name,
    stat: (signal) => door.stat(signal),
    read: (from, signal) => door.read(from, signal),
    write: (file, write) => writeToS3(door, file, write),
  };
}
