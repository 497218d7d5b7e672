import {
  type ExecAttach,
  type ExecClientMessage,
  type ExecEnd,
  type ExecServerMessage,
  type ExecStart,
  execChannel,
  execServerMessageSchema,
  ForkdError,
  isErrorCode,
  limits,
  type TerminalSize,
} from "@forkd/api";
import { type CallControl, Deadline } from "./deadline.ts";
import { deferred } from "./deferred.ts";
import { Output } from "./output.ts";
import type { Socket } from "./socket-maker.ts";

const startTimeoutMs = 90_000;
/** Credit for output goes to the daemon in pieces of this. */
const creditPieceBytes = limits.execWindowBytes / 4;
const inputPieceBytes = 32 * 1024;

type Started = Extract<ExecServerMessage, { type: "started" }>;
type Last = Extract<ExecServerMessage, { type: "exit" | "detached" | "error" }>;

/** A command that runs in a guest, with its streams. `await using` kills it unless it was left. */
export class GuestProcess {
  /** Its standard output, or all that its terminal shows. */
  readonly stdout: Output;
  readonly stderr: Output;
  readonly #socket: Socket;
  readonly #start = deferred<Started>();
  readonly #end = deferred<ExecEnd>();
  readonly #left = deferred<void>();
  #started: Started | undefined;
  #isOver = false;
  #isLeaving = false;
  #received = 0;
  #owed = 0;
  #inputCredit = 0;
  #wakeWriter: (() => void) | undefined;
  #writes: Promise<void> = Promise.resolve();

  private constructor(socket: Socket) {
    this.#socket = socket;
    const taken = (bytes: number): void => this.#consumed(bytes);
    this.stdout = new Output(taken);
    this.stderr = new Output(taken);
    for (const { promise } of [this.#start, this.#end]) promise.catch(() => undefined);
    socket.addEventListener("message", ({ data }) => this.#receive(data));
    socket.addEventListener("close", () => this.#fail(lost()));
  }

  /** For {@link Sandbox.spawn} and {@link Sandbox.attach}: says the first word on a new socket. */
  static async begin(
    socket: Socket,
    first: ExecStart | ExecAttach,
    control: CallControl,
  ): Promise<GuestProcess> {
    const process = new GuestProcess(socket);
    const deadline = new Deadline("spawn", control.timeoutMs ?? startTimeoutMs, control.signal);
    const onAbort = (): void => process.#abort(deadline.signal.reason);
    deadline.signal.addEventListener("abort", onAbort, { once: true });
    if (deadline.signal.aborted) onAbort();
    else process.#send(first);
    try {
      await process.#start.promise;
    } catch (thrown) {
      socket.close();
      const ending = deadline.ending(thrown);
      throw ending === undefined ? thrown : ending.reason;
    } finally {
      deadline.signal.removeEventListener("abort", onAbort);
    }
    process.#watch(control.signal);
    return process;
  }

  /** Names it for {@link Sandbox.attach}. */
  get id(): string {
    return this.#started?.exec_id ?? "";
  }

  /** Its process id in the guest. */
  get pid(): number {
    return this.#started?.pid ?? 0;
  }

  get tty(): boolean {
    return this.#started?.tty ?? false;
  }

  /** How much output has come, with what was before this connection: where to return to. */
  get offset(): number {
    return (this.#started?.offset ?? 0) + this.#received;
  }

  /** Its standard input, for `pipeTo`, which fails when the command ends before its input does. */
  get stdin(): WritableStream<Uint8Array | string> {
    return new WritableStream<Uint8Array | string>({
      write: (data) => this.write(data),
      close: () => this.end(),
    });
  }

  /** Writes input; resolves when the daemon has room for more. Throws exec_not_found at its end. */
  write(data: Uint8Array | string): Promise<void> {
    const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data;
    return this.#inTurn(() => this.#write(bytes));
  }

  /** Ends its input. A terminal gets the character for that, Ctrl-D. */
  end(): Promise<void> {
    return this.#inTurn(async () => this.#send({ type: "stdin_end" }));
  }

  /** `SIGINT` and the like, to its process group or its terminal's foreground. */
  signal(signal: string): void {
    this.#send({ type: "signal", signal });
  }

  kill(): void {
    this.signal("SIGKILL");
  }

  resize({ rows, cols }: TerminalSize): void {
    this.#send({ type: "resize", rows, cols });
  }

  /** Leaves it running and ends the connection; output that was not read is kept for the next. */
  async detach(): Promise<void> {
    this.#isLeaving = true;
    this.#send({ type: "detach" });
    await this.#left.promise;
  }

  /**
   * How it ended; outputs that nobody reads are dropped meanwhile. Throws what the connection broke
   * with, and sandbox_busy when the command was left, or somebody else attached to it.
   */
  async wait(): Promise<ExecEnd> {
    this.stdout.discardUnread();
    this.stderr.discardUnread();
    return await this.#end.promise;
  }

  /** Kills it unless it has ended or was left. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#isOver || this.#isLeaving) return;
    this.kill();
    await this.wait().catch(() => undefined);
    this.#socket.close();
  }

  #watch(signal: AbortSignal | undefined): void {
    if (signal === undefined) return;
    // The daemon does what it was told to when the connection ends.
    const onAbort = (): void => this.#abort(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
    void this.#left.promise.then(() => signal.removeEventListener("abort", onAbort));
  }

  #abort(reason: unknown): void {
    this.#fail(reason);
    this.#socket.close();
  }

  #inTurn(work: () => Promise<void>): Promise<void> {
    const done = this.#writes.then(work);
    this.#writes = done.catch(() => undefined);
    return done;
  }

  async #write(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length; ) {
      if (this.#isOver) throw inputIsOver();
      if (this.#inputCredit === 0) {
        const { promise, resolve } = deferred<void>();
        this.#wakeWriter = resolve;
        await promise;
        continue;
      }
      const piece = bytes.subarray(at, at + Math.min(inputPieceBytes, this.#inputCredit));
      const message = new Uint8Array(1 + piece.length);
      message[0] = execChannel.stdin;
      message.set(piece, 1);
      this.#inputCredit -= piece.length;
      this.#socket.send(message);
      at += piece.length;
    }
  }

  #send(message: ExecClientMessage): void {
    if (!this.#isOver) this.#socket.send(JSON.stringify(message));
  }

  #consumed(bytes: number): void {
    this.#owed += bytes;
    if (this.#owed < creditPieceBytes) return;
    this.#send({ type: "credit", bytes: this.#owed });
    this.#owed = 0;
  }

  #receive(data: unknown): void {
    if (this.#isOver) return;
    if (typeof data === "string") this.#onMessage(data);
    else if (data instanceof ArrayBuffer) this.#onOutput(new Uint8Array(data));
  }

  #onOutput(message: Uint8Array): void {
    const chunk = message.subarray(1);
    this.#received += chunk.length;
    (message[0] === execChannel.stderr ? this.stderr : this.stdout).push(chunk);
  }

  #onMessage(text: string): void {
    const message = parseMessage(text);
    if (message === undefined) {
      this.#fail(new ForkdError("internal", "the daemon sent a message of no known kind"));
    } else if (message.type === "started") {
      this.#started = message;
      this.#grant(message.stdin_credit);
      this.#start.resolve(message);
    } else if (message.type === "credit") {
      this.#grant(message.bytes);
    } else {
      this.#onLast(message);
    }
  }

  #onLast(message: Last): void {
    if (message.type === "exit") {
      const { type: _, ...end } = message;
      this.#end.resolve(end);
      this.#finish();
    } else if (message.type === "detached") {
      this.#fail(new ForkdError("sandbox_busy", `detached: ${message.reason}`));
    } else {
      this.#fail(problemOf(message));
    }
  }

  #grant(bytes: number): void {
    this.#inputCredit += bytes;
    this.#wakeWriter?.();
  }

  #fail(reason: unknown): void {
    if (this.#isOver) return;
    this.#start.reject(reason);
    this.#end.reject(reason);
    this.#finish(this.#isLeaving ? undefined : reason);
  }

  #finish(failure?: unknown): void {
    this.#isOver = true;
    this.stdout.end(failure);
    this.stderr.end(failure);
    this.#wakeWriter?.();
    this.#left.resolve();
  }
}

function parseMessage(text: string): ExecServerMessage | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  return execServerMessageSchema.safeParse(value).data;
}

function problemOf({ error, code, hint }: Extract<ExecServerMessage, { type: "error" }>) {
  return new ForkdError(isErrorCode(code) ? code : "internal", error, { hint });
}

function inputIsOver(): ForkdError {
  return new ForkdError("exec_not_found", "the command has ended and takes no more input", {
    hint: "wait() tells how it ended",
  });
}

function lost(): ForkdError {
  return new ForkdError("daemon_unreachable", "the connection to the daemon was lost", {
    hint: "a command that was to be kept can be attached to again, with its id and offset",
  });
}
