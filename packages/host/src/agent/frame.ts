import { ForkdError } from "@forkd/api";

/** Frame types of docs/guest-protocol.md. */
export const frameType = {
  request: 1,
  reply: 2,
  error: 3,
  event: 4,
  stdin: 5,
  stdout: 6,
  stderr: 7,
  window: 8,
  signal: 9,
} as const;

export const frameHeaderBytes = 12;
/** Payload bound of the protocol. */
export const framePayloadBytesMax = 65_536;

export interface Frame {
  readonly type: number;
  readonly stream: number;
  readonly payload: Buffer;
}

/** One frame as bytes; `payload` must be within the bound. */
export function encodeFrame(type: number, stream: number, payload: Uint8Array): Buffer {
  if (payload.length > framePayloadBytesMax) {
    throw new ForkdError(
      "payload_too_large",
      `a frame of ${payload.length} bytes is over the bound`,
    );
  }
  const bytes = Buffer.allocUnsafe(frameHeaderBytes + payload.length);
  bytes.writeUInt32LE(payload.length, 0);
  bytes.writeUInt32LE(type, 4);
  bytes.writeUInt32LE(stream, 8);
  bytes.set(payload, frameHeaderBytes);
  return bytes;
}

/** A frame that began in an earlier chunk: its header first, then a block of the whole size. */
interface Partial {
  readonly block: Buffer;
  bytes: number;
}

/**
 * Cuts a byte stream into frames. It holds at most one frame, and copies each byte at most twice,
 * however the bytes arrive.
 */
export class FrameParser {
  #partial: Partial | undefined;

  /**
   * Frames completed by `chunk`, in order; their payloads are valid until the next call. Throws
   * agent_unavailable on bytes that are no frame.
   */
  *push(chunk: Buffer): Generator<Frame> {
    let at = 0;
    while (at < chunk.length) {
      if (this.#partial === undefined) {
        const size = frameSize(chunk, at);
        if (at + size <= chunk.length) {
          yield frameAt(chunk, at, size);
          at += size;
          continue;
        }
        this.#partial = { block: Buffer.allocUnsafe(size), bytes: 0 };
      }
      const { block, bytes } = this.#partial;
      const copied = chunk.copy(block, bytes, at);
      at += copied;
      this.#partial.bytes += copied;
      if (this.#partial.bytes < block.length) return;
      const frame = this.#finish(block);
      if (frame !== undefined) yield frame;
    }
  }

  /** The frame of a full block; undefined when the block was a header that announces more. */
  #finish(block: Buffer): Frame | undefined {
    const size = frameSize(block, 0);
    if (size === block.length) {
      this.#partial = undefined;
      return frameAt(block, 0, size);
    }
    const whole = Buffer.allocUnsafe(size);
    this.#partial = { block: whole, bytes: block.copy(whole) };
    return undefined;
  }
}

/** Bytes of the frame at `at`, or of a header when that is not there yet. */
function frameSize(bytes: Buffer, at: number): number {
  if (bytes.length - at < frameHeaderBytes) return frameHeaderBytes;
  const length = bytes.readUInt32LE(at);
  const typeWord = bytes.readUInt32LE(at + 4);
  if (length <= framePayloadBytesMax && typeWord > 0 && typeWord <= 0xff) {
    return frameHeaderBytes + length;
  }
  throw new ForkdError("agent_unavailable", "the guest's agent sent bytes that are no frame", {
    hint: "the guest is broken or hostile; kill the sandbox",
  });
}

function frameAt(bytes: Buffer, at: number, size: number): Frame {
  return {
    type: bytes.readUInt32LE(at + 4),
    stream: bytes.readUInt32LE(at + 8),
    payload: bytes.subarray(at + frameHeaderBytes, at + size),
  };
}
