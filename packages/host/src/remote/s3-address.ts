/** Metadata of our objects: what their bytes hash to. */
export const hashName = "forkd-sha256";

/** An object of S3, or of a store that speaks its protocol. */
export interface S3Address {
  readonly bucket: string;
  readonly key: string;
}

/** `s3://BUCKET/KEY`; undefined for anything else. */
export function parseS3Address(text: string): S3Address | undefined {
  const match = /^s3:\/\/([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])\/([\x21-\x7e]{1,1024})$/.exec(text);
  const [, bucket = "", key = ""] = match ?? [];
  return match === null || key.endsWith("/") ? undefined : { bucket, key };
}
