import { ForkdError } from "@forkd/api";
import { type Frame, framePayloadBytesMax, frameType } from "./frame.ts";
import { type AgentEvent, eventSchema, parseMessage } from "./messages.ts";

/** Stream data that each direction may send before the receiver gives credit (the protocol). */
export const initialCreditBytes = 262_144;

export interface StreamHandlers {
  /** Data is consumed, and credit given back, when the handler returns or its promise resolves. */
  readonly onStdout?: (chunk: Buffer) => void | Promise<void>;
  readonly onStderr?: (chunk: Buffer) => void | Promise<void>;
  readonly onEvent?: (event: AgentEvent) => void;
}

interface Wire {
  send(type: number, payload: Uint8Array): void;
  release(): void;
}

interface ReplySink {
  resolve(payload: Buffer): void;
  reject(failure: ForkdError): void;
}

/** Where a stream's frames go, and who waits for its reply if not `reply`. */
interface StreamEnds {
  readonly wire: Wire;
  readonly sink?: ReplySink;
}

const deadWire: Wire = { send: () => undefined, release: () => undefined };

/** One request in flight: its data in both directions, and its reply. */
export class AgentStream {
  readonly id: number;
  /** The payload of the final `reply` frame; rejects on `error` or a broken channel. */
  readonly reply: Promise<Buffer>;
  readonly #handlers: StreamHandlers;
  readonly #wire: Wire;
  readonly #sink: ReplySink;
  #sendCredit = initialCreditBytes;
  #receivedAhead = 0;
  #wakeSender: (() => void) | undefined;
  #consumed: Promise<void> = Promise.resolve();
  #failure: ForkdError | undefined;

  constructor(id: number, handlers: StreamHandlers, ends: StreamEnds) {
    this.id = id;
    this.#handlers = handlers;
    this.#wire = ends.wire;
    const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
    this.reply = promise;
    this.#sink = ends.sink ?? { resolve, reject };
    promise.catch(() => undefined);
  }

  /** A stream that only waits for one reply. */
  static forReply(id: number, sink: ReplySink): AgentStream {
    return new AgentStream(id, {}, { wire: deadWire, sink });
  }

  /** Sends data as the guest gives credit. Throws when the stream fails meanwhile. */
  async write(data: Uint8Array): Promise<void> {
    let at = 0;
    while (at < data.length) {
      await this.#credit();
      const size = Math.min(data.length - at, this.#sendCredit, framePayloadBytesMax);
      this.#sendCredit -= size;
      this.#wire.send(frameType.stdin, data.subarray(at, at + size));
      at += size;
    }
  }

  /** Closes the command's standard input. */
  endInput(): void {
    this.#wire.send(frameType.stdin, new Uint8Array(0));
  }

  /** Sends a signal to the command's process group. */
  signal(number: number): void {
    const payload = Buffer.allocUnsafe(4);
    payload.writeUInt32LE(number);
    this.#wire.send(frameType.signal, payload);
  }

  /** Forgets the stream; what the guest still sends for it is dropped. */
  release(): void {
    this.#wire.release();
  }

  receive(frame: Frame): void {
    switch (frame.type) {
      case frameType.stdout:
        this.#consume(frame.payload, this.#handlers.onStdout);
        break;
      case frameType.stderr:
        this.#consume(frame.payload, this.#handlers.onStderr);
        break;
      case frameType.window:
        this.#grant(frame.payload);
        break;
      case frameType.event:
        this.#handlers.onEvent?.(parseMessage(eventSchema, frame.payload));
        break;
      case frameType.reply:
        this.#finish(frame.payload);
        break;
      default:
        throw new ForkdError("agent_unavailable", `the guest sent a frame of type ${frame.type}`);
    }
  }

  fail(failure: ForkdError): void {
    if (this.#failure !== undefined) return;
    this.#failure = failure;
    this.#sink.reject(failure);
    this.#wakeSender?.();
  }

  /** The reply counts only when all data before it has been consumed. */
  #finish(payload: Buffer): void {
    const copy = Buffer.from(payload);
    this.#consumed.then(
      () => this.#sink.resolve(copy),
      (error: unknown) => this.fail(consumerFailed(error)),
    );
  }

  #consume(payload: Buffer, handler: StreamHandlers["onStdout"]): void {
    this.#receivedAhead += payload.length;
    if (this.#receivedAhead > initialCreditBytes) {
      throw new ForkdError("agent_unavailable", "the guest sent more than it had credit for");
    }
    const chunk = Buffer.from(payload);
    this.#consumed = this.#consumed.then(async () => {
      await handler?.(chunk);
      this.#receivedAhead -= chunk.length;
      this.#sendWindow(chunk.length);
    });
    this.#consumed.catch((error: unknown) => this.fail(consumerFailed(error)));
  }

  #sendWindow(bytes: number): void {
    if (this.#failure !== undefined || bytes === 0) return;
    const payload = Buffer.allocUnsafe(4);
    payload.writeUInt32LE(bytes);
    this.#wire.send(frameType.window, payload);
  }

  #grant(payload: Buffer): void {
    if (payload.length !== 4)
      throw new ForkdError("agent_unavailable", "a window frame is 4 bytes");
    this.#sendCredit = Math.min(this.#sendCredit + payload.readUInt32LE(0), initialCreditBytes);
    this.#wakeSender?.();
  }

  async #credit(): Promise<void> {
    while (this.#sendCredit === 0 && this.#failure === undefined) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wakeSender = resolve;
      await promise;
    }
    if (this.#failure !== undefined) throw this.#failure;
  }
}

function consumerFailed(error: unknown): ForkdError {
  return new ForkdError("internal", "the reader of a guest's output failed", { cause: error });
}
