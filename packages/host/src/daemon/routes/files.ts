import { ForkdError, limits, type RouteResult, type SandboxId } from "@forkd/api";
import type { FileCall, FileReading, GuestFiles } from "../../fork/files.ts";
import { requestGate, sandboxGate } from "../gate.ts";
import { parseRange, rangeError } from "../range.ts";
import type { RouteHandlers } from "../register.ts";
import { StreamAnswer, type StreamCall, type StreamHandlers } from "../streams.ts";

type FileRoutes = Pick<
  RouteHandlers,
  "removeFile" | "statFile" | "listFiles" | "makeDirectory" | "renameFile"
>;
type FileStreams = Pick<StreamHandlers, "readFile" | "writeFile">;

/** Files of a sandbox: bounded for the daemon and for each sandbox, whose agent has few streams. */
export class FileDoor {
  readonly #files: GuestFiles;
  readonly #transfers = requestGate(limits.concurrentFileTransfersMax, "transfers of files");
  readonly #actions = sandboxGate(limits.fileActionsPerSandboxMax, "actions on files");

  constructor(files: GuestFiles) {
    this.#files = files;
  }

  routes(): FileRoutes {
    const files = this.#files;
    return {
      statFile: ({ params: { id }, query, signal }) =>
        this.#act(id, () => files.stat(callOf(id, query, signal), query.follow)),
      listFiles: ({ params: { id }, query, signal }) =>
        this.#act(id, () => files.list(callOf(id, query, signal))),
      removeFile: ({ params: { id }, query, signal }) =>
        this.#act(id, async () => {
          await files.remove(callOf(id, query, signal), query.recursive);
          return undefined;
        }),
      makeDirectory: ({ params: { id }, body, signal }) =>
        this.#act(id, async () => {
          const options = { ...modeOf(body.mode), parents: body.parents };
          await files.makeDirectory(callOf(id, body, signal), options);
          return undefined;
        }),
      renameFile: ({ params: { id }, body, signal }) =>
        this.#act(id, async () => {
          const to = pathOf({ path: body.new_path, path_b64: body.new_path_b64 }, "new_path");
          await files.rename(callOf(id, body, signal), to);
          return undefined;
        }),
    };
  }

  streams(): FileStreams {
    return { readFile: (call) => this.#read(call), writeFile: (call) => this.#write(call) };
  }

  #act<T>(id: SandboxId, work: () => Promise<T>): Promise<T> {
    return this.#actions.run(id, work);
  }

  #write({
    params: { id },
    query,
    bytes,
    headers,
    signal,
  }: StreamCall<"writeFile">): Promise<RouteResult<"writeFile">> {
    const call = callOf(id, query, signal);
    const announced = Number(headers["content-length"] ?? 0);
    if (announced > limits.fileBytesMax) {
      throw new ForkdError("payload_too_large", `a file has at most ${limits.fileBytesMax} bytes`);
    }
    const { parents, exclusive } = query;
    const options = { ...modeOf(query.mode), parents, exclusive, bytes };
    return this.#transfers.run(() => this.#act(id, () => this.#files.write(call, options)));
  }

  /** Holds its places until the last byte is sent, or its client has gone. */
  async #read(call: StreamCall<"readFile">): Promise<StreamAnswer> {
    const { id } = call.params;
    const over = Promise.withResolvers<void>();
    const answer = Promise.withResolvers<StreamAnswer>();
    const work = this.#transfers.run(() =>
      this.#act(id, async () => {
        answer.resolve(await this.#open(call, over.resolve));
        await over.promise;
      }),
    );
    work.catch(answer.reject);
    return await answer.promise;
  }

  async #open(
    { params: { id }, query, headers, signal }: StreamCall<"readFile">,
    done: () => void,
  ): Promise<StreamAnswer> {
    const call = callOf(id, query, signal);
    const part = await this.#part(call, headers["range"]);
    const reading = await this.#files.read(call, part ?? { offset: 0, length: null });
    signal.addEventListener("abort", done, { once: true });
    if (signal.aborted) done();
    const { isSizeExact, sizeBytes } = reading.record;
    if (part === undefined || !isSizeExact) {
      const length = isSizeExact ? { "content-length": String(sizeBytes) } : {};
      return new StreamAnswer(untilDone(reading, done), { ...byteHeaders, ...length });
    }
    if (part.offset >= sizeBytes) {
      reading.stop();
      throw rangeError(sizeBytes);
    }
    const end = Math.min(sizeBytes, part.offset + (part.length ?? sizeBytes));
    const range = {
      "content-length": String(end - part.offset),
      "content-range": `bytes ${part.offset}-${end - 1}/${sizeBytes}`,
    };
    return new StreamAnswer(untilDone(reading, done), { ...byteHeaders, ...range }, 206);
  }

  async #part(call: FileCall, header: string | string[] | undefined): Promise<Part | undefined> {
    const range = parseRange(typeof header === "string" ? header : undefined);
    if (range === undefined) return undefined;
    if ("first" in range) {
      const { first, last } = range;
      return { offset: first, length: last === null ? null : last - first + 1 };
    }
    const { size_bytes: size } = await this.#files.stat(call, true);
    if (range.suffix === 0) throw rangeError(size);
    return { offset: Math.max(0, size - range.suffix), length: null };
  }
}

interface Part {
  readonly offset: number;
  readonly length: number | null;
}

const byteHeaders = { "content-type": "application/octet-stream", "accept-ranges": "bytes" };

async function* untilDone(reading: FileReading, done: () => void): AsyncGenerator<Buffer, void> {
  try {
    yield* reading.bytes;
  } finally {
    reading.stop();
    done();
  }
}

interface PathFields {
  readonly path?: string | undefined;
  readonly path_b64?: string | undefined;
}

/** The file that a request names. Throws bad_request. */
function callOf(
  id: SandboxId,
  fields: PathFields & { readonly user?: string | null | undefined },
  signal: AbortSignal,
): FileCall {
  return { id, path: pathOf(fields, "path"), user: fields.user ?? null, signal };
}

function pathOf({ path, path_b64 }: PathFields, field: string): Buffer {
  const refuse = (why: string): ForkdError => new ForkdError("bad_request", `${field}: ${why}`);
  if ((path === undefined) === (path_b64 === undefined)) {
    throw refuse(`give either ${field} or ${field}_b64`);
  }
  const bytes =
    path_b64 === undefined ? Buffer.from(path ?? "") : Buffer.from(path_b64, "base64url");
  if (bytes.length === 0 || bytes.length > limits.filePathBytesMax || bytes.includes(0)) {
    throw refuse(`must be 1 to ${limits.filePathBytesMax} bytes, none of them NUL`);
  }
  return bytes;
}

/** Octal digits, already checked. */
function modeOf(text: string | null | undefined): { readonly mode?: number } {
  return text == null ? {} : { mode: Number.parseInt(text, 8) };
}
