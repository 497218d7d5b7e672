import {
  ForkdError,
  fileInfoSchema,
  fileQuerySchema,
  fileWriteQuerySchema,
  limits,
  toForkdError,
} from "@forkd/api";
import { type Client, SandboxFiles } from "@forkd/sdk";
import { z } from "zod";
import type { JsonObject, Tool } from "./tool.ts";

/** Bytes of a file that one call reads or writes, which travel in one JSON message. */
export const toolFileBytesMax: number = 256 * 1024;
/** What a model gets that does not say how much it wants. */
const readBytesDefault = 64 * 1024;
/** The longest character of UTF-8: a read of this many bytes always comes on. */
const characterBytesMax = 4;
/** The whole transfer; in a guest that runs it takes well under a second. */
const transferTimeoutMs = 60_000;

const encodingSchema = z.enum(["text", "base64"]).default("text");
const place = {
  sandbox_id: z.string().min(1),
  path: fileQuerySchema.shape.path.unwrap().describe("Path of a file in the guest."),
  user: fileQuerySchema.shape.user.describe("Whose rights count. Default: the image's user."),
};

const readInput = z.object({
  ...place,
  offset: z.int().min(0).max(limits.fileBytesMax).default(0).describe("First byte wanted, from 0."),
  length: z
    .int()
    .min(characterBytesMax)
    .max(toolFileBytesMax)
    .default(readBytesDefault)
    .describe("Bytes wanted at most."),
  encoding: encodingSchema.describe("text: UTF-8. base64: for any bytes."),
});

const readOutput = z.object({
  content: z.string(),
  encoding: z.enum(["text", "base64"]),
  /** Of the first byte of content. */
  offset: z.int(),
  size_bytes: z.int(),
  /** Null: content is the end of the file. */
  next_offset: z.int().nullable(),
});

const writeInput = z.object({
  ...place,
  content: z.string().describe(`At most ${toolFileBytesMax} bytes.`),
  encoding: encodingSchema.describe("text: content is written as UTF-8. base64: it is decoded."),
  mode: fileWriteQuerySchema.shape.mode.describe("Permission bits in octal, such as 0755."),
  parents: z.boolean().default(false).describe("Make the directories that are missing."),
  exclusive: z.boolean().default(false).describe("Refuse to replace a file."),
});

type ReadRequest = z.infer<typeof readInput>;
type WriteRequest = z.infer<typeof writeInput>;
type ReadResult = z.infer<typeof readOutput>;

/** Tools for the two routes whose bodies are bytes, which JSON can hold only as a bounded part. */
export function fileTools(client: Client): Tool[] {
  return [readFileTool(client), writeFileTool(client)];
}

function readFileTool(client: Client): Tool {
  return {
    name: "read_file",
    description:
      `Read up to ${toolFileBytesMax} bytes of a file in a sandbox, as text or base64. When ` +
      "next_offset is not null there is more: call again with it as offset.",
    input: readInput,
    output: readOutput,
    annotations: {
      readOnlyHint: true,
      destructiveHint: false,
      idempotentHint: true,
      openWorldHint: false,
    },
    run: (args, signal) => readFile(client, readInput.parse(args), signal),
  };
}

function writeFileTool(client: Client): Tool {
  return {
    name: "write_file",
    description:
      `Write a file of up to ${toolFileBytesMax} bytes in a sandbox, whole or not at all. One that ` +
      "is there is replaced, and keeps its mode, unless exclusive is set.",
    input: writeInput,
    output: fileInfoSchema,
    annotations: {
      readOnlyHint: false,
      destructiveHint: true,
      idempotentHint: true,
      openWorldHint: false,
    },
    run: (args, signal) => writeFile(client, writeInput.parse(args), signal),
  };
}

async function readFile(
  client: Client,
  request: ReadRequest,
  signal: AbortSignal,
): Promise<ReadResult> {
  const { offset, length, encoding } = request;
  // One byte more than is wanted tells whether there is more.
  const bytes = await readPart(client, request, signal);
  const hasMore = bytes.length > length;
  const part = bytes.subarray(0, length);
  if (encoding === "text") return textResult(request, part, hasMore);
  return {
    content: part.toString("base64"),
    encoding,
    offset,
    size_bytes: part.length,
    next_offset: hasMore ? offset + part.length : null,
  };
}

async function readPart(
  client: Client,
  { sandbox_id, path, user, offset, length }: ReadRequest,
  signal: AbortSignal,
): Promise<Buffer> {
  const wanted = length + 1;
  const range = { start: offset, end: offset + wanted };
  const files = new SandboxFiles(client, sandbox_id);
  try {
    const options = { ...range, user, signal, timeoutMs: transferTimeoutMs };
    return await takeBytes(await files.read(path, options), wanted);
  } catch (thrown) {
    // No range begins within an empty file.
    if (offset === 0 && toForkdError(thrown).code === "range_not_satisfiable") {
      return Buffer.alloc(0);
    }
    throw withTransferHint(thrown);
  }
}

/** Leaving the loop ends the transfer of a server that sends more than it was asked for. */
async function takeBytes(stream: AsyncIterable<Uint8Array>, wanted: number): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of stream) {
    chunks.push(chunk);
    size += chunk.length;
    if (size >= wanted) break;
  }
  return Buffer.concat(chunks).subarray(0, wanted);
}

/** A part may begin and end within a character: what is not whole is left to its neighbours. */
function textResult({ path, offset }: ReadRequest, part: Buffer, hasMore: boolean): ReadResult {
  const from = offset === 0 ? 0 : continuationBytes(part);
  const whole = part.subarray(from, hasMore ? wholeCharactersEnd(part) : part.length);
  return {
    content: decodeText(whole, path),
    encoding: "text",
    offset: offset + from,
    size_bytes: whole.length,
    next_offset: hasMore ? offset + from + whole.length : null,
  };
}

/** Bytes at the beginning that go on a character (RFC 3629: 10xxxxxx), which are three at most. */
function continuationBytes(part: Buffer): number {
  let count = 0;
  while (count < characterBytesMax - 1 && isContinuation(part[count])) count += 1;
  return count;
}

/** Before the last character, when it is not whole. */
function wholeCharactersEnd(part: Buffer): number {
  let start = part.length - 1;
  const first = Math.max(0, part.length - characterBytesMax);
  while (start > first && isContinuation(part[start])) start -= 1;
  return start + characterBytes(part[start] ?? 0) > part.length ? start : part.length;
}

function isContinuation(byte: number | undefined): boolean {
  return byte !== undefined && (byte & 0xc0) === 0x80;
}

/** How many bytes a character has that begins with this one. */
function characterBytes(first: number): number {
  if (first >= 0xf0) return 4;
  if (first >= 0xe0) return 3;
  return first >= 0xc0 ? 2 : 1;
}

function decodeText(bytes: Buffer, path: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw new ForkdError("bad_request", `${path} is not UTF-8 text`, {
      hint: "call read_file with encoding base64",
      cause,
    });
  }
}

async function writeFile(
  client: Client,
  request: WriteRequest,
  signal: AbortSignal,
): Promise<JsonObject> {
  const { sandbox_id, path, user, mode, parents, exclusive } = request;
  const bytes = bytesOf(request);
  const files = new SandboxFiles(client, sandbox_id);
  const bits = mode === undefined ? undefined : Number.parseInt(mode, 8);
  const options = { user, mode: bits, parents, exclusive, signal, timeoutMs: transferTimeoutMs };
  try {
    return await files.write(path, bytes, options);
  } catch (thrown) {
    throw withTransferHint(thrown);
  }
}

function bytesOf({ content, encoding }: WriteRequest): Uint8Array<ArrayBuffer> {
  const isText = encoding === "text";
  const size = Buffer.byteLength(content, isText ? "utf8" : "base64");
  if (size > toolFileBytesMax) {
    throw new ForkdError("payload_too_large", `the content has over ${toolFileBytesMax} bytes`, {
      hint:
        "write it in parts to files of their own, then join them with exec_command: " +
        '["sh", "-c", "cat PART1 PART2 > PATH"]',
    });
  }
  if (isText && !content.isWellFormed()) throw badContent("has half a character", "base64");
  const bytes = Buffer.from(content, isText ? "utf8" : "base64");
  // Node's decoder skips what is no base64.
  if (!isText && bytes.toString("base64") !== content) {
    throw badContent("is not base64 with padding and without spaces", "text");
  }
  return new Uint8Array(bytes);
}

function badContent(what: string, other: string): ForkdError {
  return new ForkdError("bad_request", `write_file: content ${what}`, {
    hint: `mend it, or call write_file with encoding ${other}`,
  });
}

/** The table's hint for models names an argument that these tools do not have. */
function withTransferHint(thrown: unknown): unknown {
  const error = toForkdError(thrown);
  if (error.code !== "deadline_exceeded") return thrown;
  return new ForkdError(error.code, error.message, {
    hint: "call ping_sandbox to see that the guest runs, then try again",
    cause: thrown,
  });
}
