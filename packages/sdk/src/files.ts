import type { FileInfo, FileList } from "@forkd/api";
import { ForkdError, fileInfoSchema } from "@forkd/api";
import type { Client, OpenStream } from "./client.ts";
import type { CallControl } from "./deadline.ts";

/** What {@link FileDownload.text} and {@link FileDownload.bytes} hold in memory at most. */
export const wholeFileBytesMax: number = 64 * 1024 * 1024;

/** A path in the guest: a text, or bytes for names that are not UTF-8. */
export type GuestPath = string | Uint8Array;

/** Bytes to write; a text is written as UTF-8, a stream as it comes. */
export type FileData = string | Uint8Array<ArrayBuffer> | Blob | AsyncIterable<Uint8Array>;

/** What any call on files takes. */
export interface FileOptions extends CallControl {
  /** Whose rights count: `name`, `uid` or `uid:gid`. Default: the image's user. */
  readonly user?: string | undefined;
}

/** `timeoutMs` is for the whole transfer; there is no limit by default but that it moves. */
export interface ReadFileOptions extends FileOptions {
  /** The first byte wanted, counted from 0. */
  readonly start?: number | undefined;
  /** The byte before which to stop. */
  readonly end?: number | undefined;
}

/** `timeoutMs` as for reading. */
export interface WriteFileOptions extends FileOptions {
  /** Permission bits, as chmod takes them: `0o755`. Default: those of the file that is there. */
  readonly mode?: number | undefined;
  /** Makes the directories above it that are missing. */
  readonly parents?: boolean | undefined;
  /** Refuses to replace a file. */
  readonly exclusive?: boolean | undefined;
}

/** A file's bytes as they come. Read it to its end, or cancel it. */
export class FileDownload {
  /** Bytes to come; null for files of the kernel, which do not know it. */
  readonly sizeBytes: number | null;
  readonly #stream: OpenStream;

  constructor(stream: OpenStream) {
    const length = stream.response.headers.get("content-length");
    this.sizeBytes = length === null ? null : Number(length);
    this.#stream = stream;
  }

  /** Throws the failure that ended the transfer early. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void> {
    const { response, ending } = this.#stream;
    if (response.body === null) return;
    try {
      for await (const chunk of response.body) yield chunk;
    } catch (thrown) {
      throw ending(thrown);
    }
  }

  /** All of it. Throws payload_too_large beyond {@link wholeFileBytesMax}. */
  async bytes(): Promise<Uint8Array<ArrayBuffer>> {
    const chunks: Uint8Array[] = [];
    let size = 0;
    for await (const chunk of this) {
      size += chunk.byteLength;
      if (size > wholeFileBytesMax) {
        throw new ForkdError("payload_too_large", `the file has over ${wholeFileBytesMax} bytes`, {
          hint: "read it as a stream: for await (const chunk of await files.read(path))",
        });
      }
      chunks.push(chunk);
    }
    return join(chunks, size);
  }

  /** All of it as UTF-8; bytes that are none become U+FFFD. */
  async text(): Promise<string> {
    return new TextDecoder().decode(await this.bytes());
  }

  /** Ends the transfer. */
  async cancel(): Promise<void> {
    await this.#stream.response.body?.cancel();
  }
}

/**
 * The files of one sandbox. Every method may throw ControllerError with sandbox_not_found,
 * sandbox_ended, file_not_found, file_denied and the other codes of docs/files.md.
 */
export class SandboxFiles {
  readonly #client: Client;
  readonly #id: string;

  constructor(client: Client, id: string) {
    this.#client = client;
    this.#id = id;
  }

  /** Resolves when the bytes begin to come. */
  async read(path: GuestPath, options: ReadFileOptions = {}): Promise<FileDownload> {
    const { start, end, user, signal, timeoutMs } = options;
    const headers = rangeHeader(start, end);
    const query = { ...pathFields(path), user };
    const call = { params: { id: this.#id }, query, headers, signal, timeoutMs };
    return new FileDownload(await this.#client.open("readFile", call));
  }

  /** The whole file as UTF-8 text. Throws payload_too_large beyond {@link wholeFileBytesMax}. */
  async readText(path: GuestPath, options: ReadFileOptions = {}): Promise<string> {
    return await (await this.read(path, options)).text();
  }

  /** The whole file. Throws payload_too_large beyond {@link wholeFileBytesMax}. */
  async readBytes(
    path: GuestPath,
    options: ReadFileOptions = {},
  ): Promise<Uint8Array<ArrayBuffer>> {
    return await (await this.read(path, options)).bytes();
  }

  /** Whole or not at all: a stream that fails leaves the file as it was. */
  async write(path: GuestPath, data: FileData, options: WriteFileOptions = {}): Promise<FileInfo> {
    const { mode, parents, exclusive, user, signal, timeoutMs } = options;
    const query = {
      ...pathFields(path),
      user,
      mode: mode?.toString(8).padStart(4, "0"),
      ...(parents === true && { parents }),
      ...(exclusive === true && { exclusive }),
    };
    const upload = new Upload(data);
    try {
      const { body } = upload;
      const call = { params: { id: this.#id }, query, signal, timeoutMs, body };
      const { response, ending } = await this.#client.open("writeFile", call);
      const text = await response.text().catch((thrown: unknown) => Promise.reject(ending(thrown)));
      return fileInfoSchema.parse(JSON.parse(text));
    } catch (thrown) {
      upload.stop();
      // What the source threw, not what became of the connection.
      throw upload.failure === undefined ? thrown : upload.failure.reason;
    }
  }

  /** Of a link itself, unless `follow` is set. */
  stat(
    path: GuestPath,
    options: FileOptions & { readonly follow?: boolean } = {},
  ): Promise<FileInfo> {
    const { user, follow, ...control } = options;
    const query = { ...pathFields(path), ...(user !== undefined && { user }) };
    const more = follow === true ? { follow } : {};
    return this.#client.statFile({
      ...control,
      params: this.#params,
      query: { ...query, ...more },
    });
  }

  /** A directory's entries by name; `truncated` when there are more than one answer may hold. */
  list(path: GuestPath, { user, ...control }: FileOptions = {}): Promise<FileList> {
    const query = { ...pathFields(path), ...(user !== undefined && { user }) };
    return this.#client.listFiles({ ...control, params: this.#params, query });
  }

  /** A file, a link or an empty directory; with `recursive` a directory with all that is in it. */
  async remove(
    path: GuestPath,
    options: FileOptions & { readonly recursive?: boolean } = {},
  ): Promise<void> {
    const { user, recursive, ...control } = options;
    const query = { ...pathFields(path), ...(user !== undefined && { user }) };
    const more = recursive === true ? { recursive } : {};
    await this.#client.removeFile({
      ...control,
      params: this.#params,
      query: { ...query, ...more },
    });
  }

  /** With `parents` also those above it, and one that is there is no error. */
  async mkdir(
    path: GuestPath,
    options: FileOptions & { readonly mode?: number; readonly parents?: boolean } = {},
  ): Promise<void> {
    const { user, mode, parents, ...control } = options;
    const body = {
      ...pathFields(path),
      ...(user !== undefined && { user }),
      ...(mode !== undefined && { mode: mode.toString(8).padStart(4, "0") }),
      ...(parents === true && { parents }),
    };
    await this.#client.makeDirectory({ ...control, params: this.#params, body });
  }

  /** Replaces a file that has the new path. */
  async rename(
    path: GuestPath,
    newPath: GuestPath,
    { user, ...control }: FileOptions = {},
  ): Promise<void> {
    const { path: new_path, path_b64: new_path_b64 } = pathFields(newPath);
    const body = {
      ...pathFields(path),
      ...(new_path !== undefined && { new_path }),
      ...(new_path_b64 !== undefined && { new_path_b64 }),
      ...(user !== undefined && { user }),
    };
    await this.#client.renameFile({ ...control, params: this.#params, body });
  }

  get #params(): { readonly id: string } {
    return { id: this.#id };
  }
}

function pathFields(path: GuestPath): { path?: string; path_b64?: string } {
  if (typeof path === "string") return { path };
  const base64 = btoa(Array.from(path, (byte) => String.fromCharCode(byte)).join(""));
  return { path_b64: base64.replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "") };
}

function rangeHeader(start: number | undefined, end: number | undefined): Record<string, string> {
  if (start === undefined && end === undefined) return {};
  const first = start ?? 0;
  const last = end === undefined ? "" : String(end - 1);
  if (!Number.isSafeInteger(first) || first < 0 || (end !== undefined && !(end > first))) {
    throw new ForkdError("bad_request", "a range begins at 0 or later, and ends after it begins");
  }
  return { range: `bytes=${first}-${last}` };
}

/** Data on its way into a request. */
class Upload {
  readonly body: RequestInit["body"];
  /** What the source threw. */
  failure: { readonly reason: unknown } | undefined;
  #isOver = false;

  constructor(data: FileData) {
    const isWhole = typeof data === "string" || data instanceof Uint8Array || data instanceof Blob;
    this.body = isWhole ? data : this.#stream(data[Symbol.asyncIterator]());
  }

  /** The source is asked for no more. Some transports go on asking when a request has failed. */
  stop(): void {
    this.#isOver = true;
  }

  #stream(source: AsyncIterator<Uint8Array>): ReadableStream<Uint8Array> {
    const end = async (): Promise<void> => {
      await source.return?.();
    };
    const pull = async (controller: ReadableStreamDefaultController<Uint8Array>): Promise<void> => {
      if (this.#isOver) {
        await end();
        throw new ForkdError("client_gone", "the upload was given up");
      }
      try {
        const { done, value } = await source.next();
        if (done === true) controller.close();
        else controller.enqueue(value);
      } catch (reason) {
        this.failure = { reason };
        throw reason;
      }
    };
    return new ReadableStream({ pull, cancel: end });
  }
}

function join(chunks: readonly Uint8Array[], size: number): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(size);
  let at = 0;
  for (const chunk of chunks) {
    all.set(chunk, at);
    at += chunk.byteLength;
  }
  return all;
}
