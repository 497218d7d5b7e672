import { ForkdError } from "@forkd/api";
import { type Frame, framePayloadBytesMax, frameType } from "./frame.ts";
import { type AgentEvent, eventSchema, parseMessage } from "./messages.ts";

/** Stream data that each direction may send before the receiver gives credit (the protocol). */
export const initialCreditBytes = 262_144;
/** Credit goes back in pieces: what a guest sends byte by byte must not be answered so. */
const creditPieceBytes = initialCreditBytes / 4;
/** Events of one stream; the longest result of an eval is a few MiB (the protocol). */
const eventBytesMax = 16 * 1024 * 1024;
/** What an event counts at least: each costs more than its bytes. */
const eventBytesMin = 1024;
/** What a request that nobody waits for may still send, so that it can come to its end. */
const drainBytesMax = 1024 * 1024;

const killSignal = 9;

export interface StreamHandlers {
  /** The chunk is valid until the handler returns; then credit is given back for it. */
  readonly onStdout?: (chunk: Buffer) => void;
  readonly onStderr?: (chunk: Buffer) => void;
  readonly onEvent?: (event: AgentEvent) => void;
  /** Output counts as taken only when {@link AgentStream.took} says so: the guest waits for it. */
  readonly isPaced?: true;
}

/** Where a stream's own frames go. A wire whose session has ended drops them. */
export interface Wire {
  send(type: number, payload: Uint8Array): void;
}

/** One request in flight: its data in both directions, and its reply. */
export class AgentStream {
  readonly id: number;
  /** The payload of the final `reply` frame; rejects on `error` or a broken channel. */
  readonly reply: Promise<Buffer>;
  readonly #wire: Wire;
  readonly #resolve: (payload: Buffer) => void;
  readonly #reject: (failure: ForkdError) => void;
  #handlers: StreamHandlers;
  #sendCredit = initialCreditBytes;
  /** What the guest may send before it gets credit again. */
  #receiveCredit = initialCreditBytes;
  /** Of a paced stream: what its handlers got and have not taken yet. */
  #heldBytes = 0;
  #eventBytes = 0;
  #drainBytes = 0;
  #wakeSender: (() => void) | undefined;
  #failure: ForkdError | undefined;
  #isOver = false;
  #releasedAt: number | undefined;

  constructor(id: number, handlers: StreamHandlers, wire: Wire) {
    this.id = id;
    this.#handlers = handlers;
    this.#wire = wire;
    const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
    this.reply = promise;
    this.#resolve = resolve;
    this.#reject = reject;
    promise.catch(() => undefined);
  }

  /** When its caller gave it up, as performance.now(); undefined while somebody waits. */
  get releasedAt(): number | undefined {
    return this.#releasedAt;
  }

  /** Sends data as the guest gives credit. Throws when the stream fails meanwhile. */
  async write(data: Uint8Array): Promise<void> {
    let at = 0;
    while (at < data.length) {
      await this.#credit();
      if (this.#isOver) return;
      const size = Math.min(data.length - at, this.#sendCredit, framePayloadBytesMax);
      this.#sendCredit -= size;
      this.#wire.send(frameType.stdin, data.subarray(at, at + size));
      at += size;
    }
  }

  /** Less may be sent than at first: so much of the guest's room for input is taken already. */
  limitInput(roomBytes: number): void {
    this.#sendCredit -= initialCreditBytes - roomBytes;
  }

  /** Closes the command's standard input. */
  endInput(): void {
    if (!this.#isOver) this.#wire.send(frameType.stdin, new Uint8Array(0));
  }

  /** Ends the command with its process group, or interrupts the code; nothing once it is over. */
  kill(): void {
    if (this.#isOver) return;
    const payload = Buffer.allocUnsafe(4);
    payload.writeUInt32LE(killSignal);
    this.#wire.send(frameType.signal, payload);
  }

  /** Nobody waits any more; what the guest still sends is dropped. Idempotent. */
  release(): void {
    this.#releasedAt ??= performance.now();
    this.#handlers = {};
    this.#heldBytes = 0;
    this.#wakeSender?.();
  }

  /** Of a paced stream: `bytes` of its output are done with, and as much may come again. */
  took(bytes: number): void {
    this.#heldBytes = Math.max(0, this.#heldBytes - bytes);
    if (!this.#isOver) this.#giveWhatIsDue();
  }

  /** Takes one frame of the guest but `error`. Throws agent_unavailable when it breaks a rule. */
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
        this.#onEvent(frame.payload);
        break;
      case frameType.reply:
        this.#end();
        this.#resolve(Buffer.from(frame.payload));
        break;
      default:
        throw broken(`the guest sent a frame of type ${frame.type}`);
    }
  }

  /** Ends the stream without a reply. */
  fail(failure: ForkdError): void {
    if (this.#isOver) return;
    this.#failure = failure;
    this.#end();
    this.#reject(failure);
  }

  #end(): void {
    this.#isOver = true;
    this.#wakeSender?.();
  }

  #consume(payload: Buffer, handler: StreamHandlers["onStdout"]): void {
    if (payload.length === 0) throw broken("the guest sent an empty piece of output");
    if (payload.length > this.#receiveCredit) {
      throw broken("the guest sent more than it had credit for");
    }
    this.#receiveCredit -= payload.length;
    if (this.#handlers.isPaced === true) this.#heldBytes += payload.length;
    handler?.(payload);
    this.#giveWhatIsDue();
  }

  #giveWhatIsDue(): void {
    const bytes = initialCreditBytes - this.#receiveCredit - this.#heldBytes;
    if (bytes >= creditPieceBytes) this.#giveCredit(bytes);
  }

  #giveCredit(bytes: number): void {
    if (this.#releasedAt !== undefined) {
      if (this.#drainBytes >= drainBytesMax) return;
      this.#drainBytes += bytes;
    }
    const payload = Buffer.allocUnsafe(4);
    payload.writeUInt32LE(bytes);
    this.#receiveCredit += bytes;
    this.#wire.send(frameType.window, payload);
  }

  #onEvent(payload: Buffer): void {
    this.#eventBytes += Math.max(payload.length, eventBytesMin);
    if (this.#eventBytes > eventBytesMax) throw broken("the guest sent too many events");
    const event = parseMessage(eventSchema, payload);
    this.#handlers.onEvent?.(event);
  }

  #grant(payload: Buffer): void {
    if (payload.length !== 4) throw broken("the guest sent a window that is not 4 bytes");
    const bytes = payload.readUInt32LE(0);
    if (bytes === 0 || bytes > initialCreditBytes - this.#sendCredit) {
      throw broken("the guest gave credit for what it was not sent");
    }
    this.#sendCredit += bytes;
    this.#wakeSender?.();
  }

  async #credit(): Promise<void> {
    while (this.#sendCredit === 0 && !this.#isOver && this.#releasedAt === undefined) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wakeSender = resolve;
      await promise;
    }
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#releasedAt !== undefined) throw broken("the request was given up");
  }
}

function broken(message: string): ForkdError {
  return new ForkdError("agent_unavailable", message);
}
