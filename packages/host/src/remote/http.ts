import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import type { ClientRequest, IncomingMessage } from "node:http";
import { Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { httpCall } from "./http-call.ts";
import { nameOf } from "./names.ts";
import type { Env } from "./proxy.ts";
import { Itinerary } from "./reach.ts";
import type { ReadFrom, RemoteFacts, RemoteObject, RemoteRead, UploadFile } from "./remote.ts";
import { changedWhileSent, nothingMore } from "./remote.ts";
import { type RetryOptions, retrying } from "./retry.ts";

export interface HttpOptions {
  readonly retry: RetryOptions;
  /** By way of whom we got here; absent: the user named the address. */
  readonly itinerary?: Itinerary;
  /** May name proxies; for an address without an itinerary yet. */
  readonly env?: Env;
}

/** What any server of files, or a presigned address of a store, gives and takes. */
export function httpObject(url: URL, { retry, itinerary, env = {} }: HttpOptions): RemoteObject {
  const place = { url, itinerary: itinerary ?? new Itinerary(url, env) };
  return {
    name: nameOf(url),
    stat: (signal) =>
      retrying(retry, signal, async () => {
        const answer = await httpCall({ ...place, method: "HEAD", headers: {}, signal });
        answer.destroy();
        return factsOf(answer, 0);
      }),
    read: async (from, signal) => {
      const headers = rangeHeaders(from);
      const answer = await httpCall({ ...place, method: "GET", headers, signal, accept: [416] });
      if (isPart(answer, from)) return readOf(answer, from.offset);
      if (answer.statusCode === 200) return readOf(answer, 0);
      answer.destroy();
      if (isWhole(answer, from)) return nothingMore(from);
      // It is shorter by now, or the server does not mind If-Range.
      return readOf(await httpCall({ ...place, method: "GET", headers: plain, signal }), 0);
    },
    write: (file, { signal, onBytes }) =>
      retrying(retry, signal, async () => {
        // As upstream's client does: some presigned addresses are signed without a content type.
        const headers = { "content-length": String(file.sizeBytes) };
        const sender = new Sender(file, onBytes);
        const send = (request: ClientRequest) => sender.send(request);
        try {
          const answer = await httpCall({ ...place, method: "PUT", headers, signal, send });
          answer.destroy();
        } catch (error) {
          sender.takeBack();
          throw error;
        }
      }),
  };
}

/** No server must compress what is compressed: ranges would be those of another body. */
const plain = { "accept-encoding": "identity" } as const;

/** If-Range makes a server send all of an object that has changed (RFC 9110, 13.1.5). */
function rangeHeaders({ offset, version }: ReadFrom): Record<string, string> {
  if (offset === 0) return plain;
  return { ...plain, range: `bytes=${offset}-`, ...(version !== null && { "if-range": version }) };
}

/** Whether it is the part that was asked for: `bytes FIRST-LAST/SIZE` (RFC 9110, 14.4). */
function isPart(answer: IncomingMessage, { offset, version }: ReadFrom): boolean {
  const range = answer.headers["content-range"] ?? "";
  const first = /^bytes (\d{1,15})-\d{1,15}\//.exec(range)?.[1];
  const isRange = answer.statusCode === 206 && first !== undefined && Number(first) === offset;
  return isRange && (version === null || version === versionOf(answer));
}

/** Whether nothing is behind the bytes that are here: a 416 says the size (RFC 9110, 14.4). */
function isWhole(answer: IncomingMessage, { offset }: ReadFrom): boolean {
  return answer.statusCode === 416 && answer.headers["content-range"] === `bytes */${offset}`;
}

function readOf(answer: IncomingMessage, offset: number): RemoteRead {
  return { ...factsOf(answer, offset), offset, body: answer };
}

function versionOf({ headers: { etag } }: IncomingMessage): string | null {
  // Weak tags, W/"...", stand for more than one sequence of bytes.
  return etag !== undefined && /^"[\x21\x23-\x7e]{1,200}"$/.test(etag) ? etag : null;
}

function factsOf(answer: IncomingMessage, offset: number): RemoteFacts {
  const length = answer.headers["content-length"];
  const rest = length !== undefined && /^\d{1,15}$/.test(length) ? Number(length) : null;
  const sizeBytes = rest === null ? null : offset + rest;
  return { sizeBytes, version: versionOf(answer), sha256: null };
}

/** Sends the bytes that were hashed, or not all of them: then the server keeps nothing. */
class Sender {
  readonly #file: UploadFile;
  readonly #onBytes: (count: number) => void;
  #sent = 0;

  constructor(file: UploadFile, onBytes: (count: number) => void) {
    this.#file = file;
    this.#onBytes = onBytes;
  }

  async send(request: ClientRequest): Promise<void> {
    this.takeBack();
    const source = createReadStream(this.#file.path, { end: this.#file.sizeBytes - 1 });
    const count = (bytes: number): void => {
      this.#sent += bytes;
      this.#onBytes(bytes);
    };
    await pipeline(source, lastWhenRight(this.#file, count), request);
  }

  /** What was sent was in vain. */
  takeBack(): void {
    this.#onBytes(-this.#sent);
    this.#sent = 0;
  }
}

/** Passes everything on, the last piece only once all of it hashes to what it should. */
function lastWhenRight(file: UploadFile, count: (bytes: number) => void): Transform {
  const hash = createHash("sha256");
  let held: Buffer = Buffer.alloc(0);
  return new Transform({
    transform: (chunk: Buffer, _encoding, done) => {
      const passed = held;
      held = chunk;
      hash.update(chunk);
      count(chunk.length);
      done(null, passed);
    },
    flush: (done) => {
      if (hash.digest("hex") === file.sha256) done(null, held);
      else done(changedWhileSent(file));
    },
  });
}
