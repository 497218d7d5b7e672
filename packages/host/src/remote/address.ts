import { ForkdError } from "@forkd/api";
import type { HubRef } from "./hub-index.ts";
import { parseHubRef } from "./hub-index.ts";
import { nameOf } from "./names.ts";
import type { RemoteObject } from "./remote.ts";
import { parseS3Address, type S3Address } from "./s3-address.ts";
import type { S3Options } from "./s3-door.ts";

/** Where a pack is kept. Another kind of remote joins here and in {@link openRemote}. */
export type RemoteAddress =
  | { readonly kind: "http"; readonly url: URL }
  | { readonly kind: "s3"; readonly address: S3Address };

const addressCharsMax = 8192;

/** `http://`, `https://` or `s3://`. Throws bad_request. */
export function parseRemote(text: string): RemoteAddress {
  const found = remoteOf(text);
  if (found !== undefined) return found;
  throw new ForkdError("bad_request", `${shown(text)} is not the address of a remote`, {
    hint: "write https://HOST/FILE or s3://BUCKET/KEY",
  });
}

/** What can be pulled: a remote, or `OWNER/NAME[@VERSION]` of a hub. Throws bad_request. */
export function parsePullTarget(
  text: string,
): RemoteAddress | { readonly kind: "hub"; readonly ref: HubRef } {
  const found = remoteOf(text);
  if (found !== undefined) return found;
  const ref = parseHubRef(text);
  if (ref !== undefined) return { kind: "hub", ref };
  throw new ForkdError("bad_request", `${shown(text)} is neither an address nor OWNER/NAME`, {
    hint: "write https://HOST/FILE, s3://BUCKET/KEY or OWNER/NAME[@VERSION]",
  });
}

function remoteOf(text: string): RemoteAddress | undefined {
  if (text.length > addressCharsMax) return undefined;
  const address = parseS3Address(text);
  if (address !== undefined) return { kind: "s3", address };
  const url = URL.parse(text);
  const isHttp = url?.protocol === "http:" || url?.protocol === "https:";
  return url !== null && isHttp ? { kind: "http", url } : undefined;
}

/** What {@link openRemote} calls it: without the secrets that an address may carry. */
export function nameOfRemote(remote: RemoteAddress): string {
  if (remote.kind === "http") return nameOf(remote.url);
  return `s3://${remote.address.bucket}/${remote.address.key}`;
}

/** Without the query, which is what a presigned address keeps secret. */
function shown(text: string): string {
  return JSON.stringify(text.replace(/\?.*$/s, "?...").slice(0, 200));
}

/**
 * The object at an address that the user named. What speaks to it is loaded here: command lines
 * that only name addresses start without an HTTP client.
 */
export async function openRemote(remote: RemoteAddress, options: S3Options): Promise<RemoteObject> {
  if (remote.kind === "s3") {
    const { s3Object } = await import("./s3.ts");
    return await s3Object(remote.address, options);
  }
  const { httpObject } = await import("./http.ts");
  return httpObject(remote.url, options);
}
