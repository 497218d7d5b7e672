import { connect, type Socket } from "node:net";
import { Duplex } from "node:stream";
import { ForkdError } from "@forkd/api";

/** `OK <port>\n`, upstream's docs/vsock.md. */
const greetingPattern = /^OK \d{1,10}$/;
const greetingBytesMax = 32;

export interface ChannelTarget {
  /** Firecracker's vsock socket. */
  readonly socketPath: string;
  readonly port: number;
  /** Resolves when the guest can take a connection: it runs, and its agent listens. */
  readonly ready: Promise<void>;
}

/**
 * A connection to a port of the guest, through Firecracker. It may be written to at once: what is
 * written waits until the guest has taken the connection.
 */
export class VsockChannel extends Duplex {
  #inner: Socket | undefined;
  #greeting: Buffer | undefined = Buffer.alloc(0);
  #waiting: { readonly chunk: Buffer; readonly done: (error?: Error | null) => void } | undefined;

  constructor(target: ChannelTarget) {
    super();
    target.ready.then(
      () => this.#connect(target),
      (error: unknown) => this.destroy(error instanceof Error ? error : new Error(String(error))),
    );
  }

  /** Whether Firecracker has been asked for it. */
  get begun(): boolean {
    return this.#inner !== undefined;
  }

  #connect({ socketPath, port }: ChannelTarget): void {
    if (this.destroyed) return;
    const inner = connect(socketPath, () => inner.write(`CONNECT ${port}\n`));
    this.#inner = inner;
    inner.on("data", (chunk: Buffer) => this.#receive(chunk));
    inner.on("error", (error) => this.destroy(notTaken(error.message, error)));
    inner.on("close", () => {
      if (this.#greeting === undefined) this.push(null);
      this.destroy(this.#greeting === undefined ? undefined : notTaken("it was refused"));
    });
  }

  #receive(chunk: Buffer): void {
    if (this.#greeting === undefined) {
      if (!this.push(chunk)) this.#inner?.pause();
      return;
    }
    const bytes = Buffer.concat([this.#greeting, chunk]);
    const end = bytes.indexOf("\n");
    if (end < 0 && bytes.length <= greetingBytesMax) {
      this.#greeting = bytes;
      return;
    }
    if (end < 0 || !greetingPattern.test(bytes.toString("latin1", 0, end))) {
      this.destroy(notTaken("what answered is not Firecracker"));
      return;
    }
    this.#greeting = undefined;
    const rest = bytes.subarray(end + 1);
    if (rest.length > 0) this.push(rest);
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (waiting !== undefined) this.#inner?.write(waiting.chunk, waiting.done);
  }

  override _read(): void {
    this.#inner?.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void) {
    if (this.#greeting === undefined) this.#inner?.write(chunk, done);
    else this.#waiting = { chunk, done };
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#inner?.end();
    done();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#inner?.destroy();
    done(error);
  }
}

function notTaken(why: string, cause?: unknown): ForkdError {
  const message = `the guest's agent does not take a connection: ${why}`;
  return new ForkdError("agent_unavailable", message, { cause });
}
