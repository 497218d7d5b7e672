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

/** Cuts a byte stream into frames. Holds at most one frame and what the last chunk began. */
export class FrameParser {
  #pending: Buffer = Buffer.alloc(0);

  /** Frames completed by `chunk`, in order. Throws agent_unavailable on bytes that are no frame. */
  *push(chunk: Buffer): Generator<Frame> {
    this.#pending = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk]);
    for (let frame = this.#take(); frame !== undefined; frame = this.#take()) yield frame;
  }

  #take(): Frame | undefined {
    const bytes = this.#pending;
    if (bytes.length < frameHeaderBytes) return undefined;
    const length = bytes.readUInt32LE(0);
    const typeWord = bytes.readUInt32LE(4);
    if (length > framePayloadBytesMax || typeWord === 0 || typeWord > 0xff) {
      throw new ForkdError("agent_unavailable", "the guest's agent sent bytes that are no frame", {
        hint: "the guest is broken or hostile; kill the sandbox",
      });
    }
    const end = frameHeaderBytes + length;
    if (bytes.length < end) return undefined;
    this.#pending = bytes.subarray(end);
    return {
      type: typeWord,
      stream: bytes.readUInt32LE(8),
      payload: bytes.subarray(frameHeaderBytes, end),
    };
  }
}
