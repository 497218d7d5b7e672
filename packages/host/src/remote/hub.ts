import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { ForkdError, limits } from "@forkd/api";
import { z } from "zod";
import { replaceFile } from "../lib/atomic.ts";
import { httpObject } from "./http.ts";
import { httpCall } from "./http-call.ts";
import { findVersion, type HubIndex, type HubRef, parseHubIndex } from "./hub-index.ts";
import { nameOf } from "./names.ts";
import type { Env } from "./proxy.ts";
import { Itinerary } from "./reach.ts";
import type { RemoteObject } from "./remote.ts";
import { type RetryOptions, retrying } from "./retry.ts";

/** Indexes that are kept to be asked for again only when they have changed. */
const cachedMax = 8;
const cacheNamePattern = /^[0-9a-f]{64}\.json$/;

const cacheSchema = z.object({
  format: z.literal(1),
  etag: z.string(),
  text: z.string().max(limits.hubIndexBytesMax),
});
type Cached = z.infer<typeof cacheSchema>;

export interface HubOptions {
  /** Where indexes are kept from one run to the next. */
  readonly cacheDir: string;
  readonly retry: RetryOptions;
  readonly signal: AbortSignal;
  /** May name proxies. */
  readonly env: Env;
}

/** A hub's index, and the way by which we came to it. */
export interface Hub {
  readonly name: string;
  readonly index: HubIndex;
  readonly itinerary: Itinerary;
}

/**
 * Fetches the index of a hub; one that has not changed is taken from the cache. Throws hub_invalid,
 * and what remotes throw.
 */
export async function openHub(url: URL, options: HubOptions): Promise<Hub> {
  const { retry, signal, cacheDir } = options;
  const itinerary = new Itinerary(url, options.env);
  const file = join(cacheDir, `${createHash("sha256").update(url.href).digest("hex")}.json`);
  const cached = await readCached(file);
  const name = nameOf(url);
  const fetched = await retrying(retry, signal, () =>
    fetchIndex({ url, itinerary, signal, etag: cached?.etag ?? null }),
  );
  const text = fetched === "unchanged" ? (cached?.text ?? "") : fetched.text;
  const index = parseHubIndex(text, name);
  if (fetched !== "unchanged" && fetched.etag !== null) {
    await keep(cacheDir, file, { format: 1, etag: fetched.etag, text });
  }
  return { name, index, itinerary };
}

/** A package's version, and what it must be. */
export interface HubPack {
  readonly from: RemoteObject;
  readonly sha256: string;
  readonly sizeBytes: number | null;
}

/**
 * Where a hub says that a package is. An address in an index is a hop like any redirect, and is
 * never opened with this host's credentials. Throws remote_not_found, remote_refused, hub_invalid
 * for a version without a hash, unless `sha256` has it.
 */
export function packOf(
  { index, itinerary }: Hub,
  ref: HubRef,
  { retry, sha256 }: { readonly retry: RetryOptions; readonly sha256: string | null },
): HubPack {
  const version = findVersion(index, ref);
  const id = `${ref.owner}/${ref.name}@${ref.version}`;
  const url = URL.parse(version.url);
  if (url === null) throw new ForkdError("hub_invalid", `the hub has no address for ${id}`);
  itinerary.requireHop(url);
  const wanted = version.sha256 ?? sha256;
  if (wanted === null) {
    throw new ForkdError("hub_invalid", `the hub does not say what ${id} must hash to`, {
      hint: "get the hash from its publisher and add: --sha256 HASH",
    });
  }
  if (sha256 !== null && sha256 !== wanted) {
    throw new ForkdError("remote_corrupt", `the hub says that ${id} hashes to ${wanted}`, {
      hint: "it was published again, or --sha256 is that of another version",
    });
  }
  const sizeBytes = version.size_bytes ?? null;
  return { from: httpObject(url, { retry, itinerary }), sha256: wanted, sizeBytes };
}

interface IndexCall {
  readonly url: URL;
  readonly itinerary: Itinerary;
  readonly signal: AbortSignal;
  readonly etag: string | null;
}

async function fetchIndex(
  call: IndexCall,
): Promise<"unchanged" | { readonly text: string; readonly etag: string | null }> {
  const { etag, url } = call;
  const headers = { accept: "application/json", ...(etag !== null && { "if-none-match": etag }) };
  const answer = await httpCall({ ...call, method: "GET", headers, accept: [304] });
  if (answer.statusCode === 304 && etag !== null) {
    answer.destroy();
    return "unchanged";
  }
  const chunks: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const chunk of answer) {
      chunks.push(chunk);
      bytes += chunk.length;
      if (bytes > limits.hubIndexBytesMax) throw tooLarge(url);
    }
  } catch (error) {
    call.signal.throwIfAborted();
    if (error instanceof ForkdError) throw error;
    throw new ForkdError("remote_unreachable", `${nameOf(url)} was cut off`, { cause: error });
  } finally {
    answer.destroy();
  }
  return { text: Buffer.concat(chunks).toString("utf8"), etag: answer.headers.etag ?? null };
}

function tooLarge(url: URL): ForkdError {
  const message = `the index ${nameOf(url)} is over ${limits.hubIndexBytesMax} bytes`;
  return new ForkdError("hub_invalid", message);
}

async function readCached(file: string): Promise<Cached | undefined> {
  try {
    return cacheSchema.parse(JSON.parse(await readFile(file, "utf8")));
  } catch {
    // Nothing that can be read: the index is fetched, which is always right.
    return undefined;
  }
}

async function keep(dir: string, file: string, cached: Cached): Promise<void> {
  await mkdir(dir, { recursive: true, mode: 0o700 });
  await replaceFile(file, JSON.stringify(cached));
  const names = (await readdir(dir)).filter((name) => cacheNamePattern.test(name));
  const aged = await Promise.all(
    names.map(async (name) => {
      const path = join(dir, name);
      return { path, usedMs: (await stat(path).catch(() => undefined))?.mtimeMs ?? 0 };
    }),
  );
  const surplus = aged.toSorted((a, b) => b.usedMs - a.usedMs).slice(cachedMax);
  for (const { path } of surplus) await rm(path, { force: true });
}
