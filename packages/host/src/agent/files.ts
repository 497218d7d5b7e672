import { ForkdError, limits } from "@forkd/api";
import { withDeadline } from "../lib/deadline.ts";
import { type FileRecord, RecordParser } from "./file-record.ts";
import { framePayloadBytesMax } from "./frame.ts";
import type { AgentSession } from "./session.ts";
import type { AgentStream } from "./stream.ts";
import { Waiter } from "./waiter.ts";

/** Beyond the guest's own deadline: time for it to kill the worker and to say so. */
const graceMs = 5_000;
/** A transfer is bounded by its standing still; the guest's own clock only ends what is forgotten. */
const transferMaxMs = 86_400_000;
/** What a worker may take to see that its input was cut. */
const cutMaxMs = 5_000;
const pieceHeaderBytes = 4;
const pieceBytesMax = framePayloadBytesMax - pieceHeaderBytes;

/** Which file is meant, and with whose rights. */
export interface FileTarget {
  /** 1 to `limits.filePathBytesMax` bytes without NUL, already checked. */
  readonly path: Buffer;
  /** Null: the image's. */
  readonly user: string | null;
}

/** What moves no bytes. */
export type FileAction =
  | { readonly action: "stat"; readonly follow: boolean }
  | { readonly action: "list"; readonly length: number }
  | { readonly action: "mkdir"; readonly mode?: number; readonly parents: boolean }
  | { readonly action: "remove"; readonly recursive: boolean }
  | { readonly action: "rename"; readonly to_b64: string };

export interface WriteOptions {
  /** Permission bits; absent keeps those of the file that is there. */
  readonly mode?: number;
  readonly parents: boolean;
  readonly exclusive: boolean;
}

export interface ReadOptions {
  readonly offset: number;
  /** Bytes at most; null is to the end. */
  readonly length: number | null;
}

/**
 * Does one action and returns the records that the guest sends for it. Throws the codes of
 * `fileErrors` of the route table, deadline_exceeded, the signal's reason.
 */
export async function fileAction(
  session: AgentSession,
  target: FileTarget,
  { request, signal }: { readonly request: FileAction; readonly signal: AbortSignal | undefined },
): Promise<FileRecord[]> {
  signal?.throwIfAborted();
  const timeoutMs = limits.fileActionMaxMs;
  const parser = new RecordParser();
  const records: FileRecord[] = [];
  const op = { ...opOf(target, timeoutMs), ...request };
  const waiter = new Waiter(signal);
  const stream = session.open(op, {
    onStdout: (chunk) => {
      parser.push(chunk);
      for (let next = parser.take(); next !== undefined; next = parser.take()) records.push(next);
      if (records.length > limits.fileListEntriesMax + 1) throw tooMuch();
    },
  });
  try {
    await waiter.wait(stream.reply, timeoutMs + graceMs, "the guest's answer");
    return records;
  } finally {
    stream.kill();
    stream.release();
    waiter.close();
  }
}

/** A file that is being read: what it is, and its bytes as they come. */
export interface FileReading {
  readonly record: FileRecord;
  /** To be read once, or ended with `stop`. The guest waits for a slow reader. */
  readonly bytes: AsyncGenerator<Buffer, void>;
  /** Ends the guest's side. Idempotent, and nothing at the end. */
  stop(): void;
}

/** Opens a file for reading. Throws as {@link fileAction}, before the first byte or among them. */
export async function readFile(
  session: AgentSession,
  target: FileTarget,
  { offset, length, signal }: ReadOptions & { readonly signal: AbortSignal | undefined },
): Promise<FileReading> {
  signal?.throwIfAborted();
  const op = {
    ...opOf(target, transferMaxMs),
    action: "read",
    offset,
    length: Math.min(length ?? limits.fileBytesMax, limits.fileBytesMax),
  };
  const reader = new Reader(session, op, signal);
  try {
    return { record: await reader.record(), bytes: reader.bytes(), stop: () => reader.stop() };
  } catch (error) {
    reader.stop();
    throw error;
  }
}

class Reader {
  readonly #waiter: Waiter;
  readonly #stream: AgentStream;
  readonly #chunks: Buffer[] = [];
  #wake: (() => void) | undefined;
  #isAtEnd = false;

  constructor(session: AgentSession, op: object, signal: AbortSignal | undefined) {
    this.#waiter = new Waiter(signal);
    this.#stream = session.open(op, {
      isPaced: true,
      onStdout: (chunk) => {
        // The frame's memory is used again after this.
        this.#chunks.push(Buffer.from(chunk));
        this.#wake?.();
      },
    });
    const end = (): void => {
      this.#isAtEnd = true;
      this.#wake?.();
    };
    this.#stream.reply.then(end, (error: unknown) => this.#waiter.fail(error));
  }

  async record(): Promise<FileRecord> {
    const parser = new RecordParser();
    for (;;) {
      const chunk = await this.#next();
      if (chunk === undefined) throw tooLittle();
      parser.push(chunk);
      const record = parser.take();
      if (record === undefined) {
        this.#stream.took(chunk.length);
        continue;
      }
      const rest = parser.drain();
      this.#stream.took(chunk.length - rest.length);
      if (rest.length > 0) this.#chunks.unshift(rest);
      return record;
    }
  }

  async *bytes(): AsyncGenerator<Buffer, void> {
    try {
      for (let chunk = await this.#next(); chunk !== undefined; chunk = await this.#next()) {
        yield chunk;
        this.#stream.took(chunk.length);
      }
    } finally {
      this.stop();
    }
  }

  stop(): void {
    this.#stream.kill();
    this.#stream.release();
    this.#waiter.close();
    this.#chunks.length = 0;
  }

  /** Undefined at the end. */
  async #next(): Promise<Buffer | undefined> {
    while (this.#chunks.length === 0 && !this.#isAtEnd) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      await this.#waiter.wait(promise, limits.fileTransferIdleMaxMs, "the next bytes of the file");
    }
    return this.#chunks.shift();
  }
}

/**
 * Writes a file: whole, or not at all. Throws as {@link fileAction}, payload_too_large,
 * upload_incomplete, and what `bytes` throws.
 */
export async function writeFile(
  session: AgentSession,
  target: FileTarget,
  order: WriteOptions & {
    readonly bytes: AsyncIterable<Uint8Array>;
    readonly signal: AbortSignal | undefined;
  },
): Promise<FileRecord> {
  const { bytes, signal, ...options } = order;
  signal?.throwIfAborted();
  const parser = new RecordParser();
  const op = { ...opOf(target, transferMaxMs), action: "write", ...options };
  const waiter = new Waiter(signal);
  const stream = session.open(op, { onStdout: (chunk) => parser.push(chunk) });
  stream.reply.catch((error: unknown) => waiter.fail(error));
  try {
    await feed(stream, bytes, waiter);
    await waiter.wait(stream.reply, limits.fileTransferIdleMaxMs, "the end of the write");
    const record = parser.take();
    if (record === undefined) throw tooLittle();
    return record;
  } finally {
    waiter.close();
    cut(stream);
  }
}

async function feed(
  stream: AgentStream,
  bytes: AsyncIterable<Uint8Array>,
  waiter: Waiter,
): Promise<void> {
  const source = bytes[Symbol.asyncIterator]();
  let sentBytes = 0;
  try {
    for (;;) {
      const idleMs = limits.fileTransferIdleMaxMs;
      const next = await waiter.wait(source.next(), idleMs, "the next bytes of the upload");
      if (next.done === true) break;
      sentBytes += next.value.length;
      if (sentBytes > limits.fileBytesMax) throw fileTooLarge();
      await waiter.wait(sendPieces(stream, next.value), idleMs, "the guest to take bytes");
    }
  } finally {
    // Not awaited: a source that hangs must not hang who gives it up.
    void source.return?.().catch(() => undefined);
  }
  await waiter.wait(stream.write(Buffer.alloc(pieceHeaderBytes)), cutMaxMs, "the last piece");
}

async function sendPieces(stream: AgentStream, data: Uint8Array): Promise<void> {
  for (let at = 0; at < data.length; at += pieceBytesMax) {
    const part = data.subarray(at, at + pieceBytesMax);
    const piece = Buffer.allocUnsafe(pieceHeaderBytes + part.length);
    piece.writeUInt32LE(part.length, 0);
    piece.set(part, pieceHeaderBytes);
    await stream.write(piece);
  }
}

/**
 * Closes the input, so that a worker that still writes drops its draft; one that does not see it is
 * killed. Nothing for one that has ended.
 */
function cut(stream: AgentStream): void {
  stream.endInput();
  const over = withDeadline(stream.reply, cutMaxMs, "the end of a write");
  void over.catch(() => stream.kill()).finally(() => stream.release());
}

function opOf({ path, user }: FileTarget, timeoutMs: number): object {
  return {
    op: "file",
    path_b64: path.toString("base64"),
    timeout_ms: timeoutMs,
    ...(user === null ? {} : { user }),
  };
}

function tooLittle(): ForkdError {
  return new ForkdError("agent_unavailable", "the guest's agent did not say what the file is");
}

function tooMuch(): ForkdError {
  return new ForkdError("agent_unavailable", "the guest's agent sent more files than it was asked");
}

function fileTooLarge(): ForkdError {
  return new ForkdError("payload_too_large", `a file has at most ${limits.fileBytesMax} bytes`);
}
