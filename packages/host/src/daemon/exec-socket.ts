import {
  type ExecAttach,
  type ExecClientMessage,
  type ExecServerMessage,
  type ExecStart,
  execChannel,
  execClientMessageSchema,
  ForkdError,
  limits,
  toForkdError,
} from "@forkd/api";
import type { RawData, WebSocket } from "ws";
import type { ExecSink, ExecStarted, OpenExec } from "../fork/service.ts";
import { keepAsking } from "./heartbeat.ts";

/** RFC 6455, 7.4.1. */
const closeCodes = { done: 1000, violation: 1008, failed: 1011 } as const;
/** Input goes to the guest, and credit for it to the client, in pieces of at most this. */
const inputPieceBytes = 32 * 1024;

export interface ExecSocketOptions {
  /** Starts the command, or returns to it. */
  readonly open: (request: ExecStart | ExecAttach, sink: ExecSink) => Promise<OpenExec>;
  /** Aborts when the daemon stops: commands run on then. */
  readonly stopping: AbortSignal;
  readonly startMaxMs?: number;
  readonly pingEveryMs?: number;
}

/**
 * Serves one client of an exec stream until its connection has ended; docs/exec.md has the
 * messages.
 * What is under way to the client is bounded by the guest's credit, which is given as the client
 * takes output; what is under way to the guest by the credit that the client is given.
 */
export async function serveExec(socket: WebSocket, options: ExecSocketOptions): Promise<void> {
  await new ExecConnection(socket, options).over;
}

class ExecConnection {
  readonly over: Promise<void>;
  readonly #socket: WebSocket;
  readonly #options: ExecSocketOptions;
  readonly #opened = Promise.withResolvers<OpenExec>();
  #request: ExecStart | ExecAttach | undefined;
  #exec: OpenExec | undefined;
  #isOver = false;
  #leaving: Promise<void> | undefined;
  #controls: Promise<unknown>;
  #controlsWaiting = 0;
  /** Input that the client may send. */
  #inputCredit: number = limits.execWindowBytes;
  readonly #stage = new Stage();
  #inputEnds = false;
  #isPumping = false;
  /** Output that the client was sent and has not taken. */
  #unconsumed = 0;

  constructor(socket: WebSocket, options: ExecSocketOptions) {
    this.#socket = socket;
    this.#options = options;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.over = promise;
    this.#opened.promise.catch(() => undefined);
    this.#controls = this.#opened.promise.catch(() => undefined);
    const late = setTimeout(
      () => this.#refuse("the first message did not come in time"),
      options.startMaxMs ?? limits.execStartMaxMs,
    );
    const stopAsking = keepAsking(socket, options.pingEveryMs ?? limits.execPingEveryMs);
    socket.on("message", (data, isBinary) => {
      clearTimeout(late);
      this.#receive(data, isBinary);
    });
    // A frame that is no WebSocket's; the library closes with the code for it.
    socket.on("error", () => undefined);
    socket.once("close", () => {
      clearTimeout(late);
      stopAsking();
      this.#isOver = true;
      void this.#leave().finally(resolve);
    });
  }

  #receive(data: RawData, isBinary: boolean): void {
    if (this.#isOver) return;
    try {
      // ws gives one Buffer unless it is told otherwise.
      const bytes = data as Buffer;
      if (isBinary) this.#onInput(bytes);
      else this.#onMessage(parseMessage(bytes));
    } catch (error) {
      this.#fail(toForkdError(error), closeCodes.violation);
    }
  }

  #onMessage(message: ExecClientMessage): void {
    if (message.type === "start" || message.type === "attach") {
      if (this.#request !== undefined) throw violation("the first message came twice");
      this.#request = message;
      void this.#run(message);
      return;
    }
    if (this.#request === undefined) throw violation("the first message must be start or attach");
    if (message.type === "credit") this.#onCredit(message.bytes);
    else if (message.type === "stdin_end") this.#onInputEnd();
    else this.#enqueueControl(message);
  }

  #onCredit(bytes: number): void {
    if (this.#request?.flow !== "client" || bytes > this.#unconsumed) {
      throw violation("credit for output that was not sent");
    }
    this.#consumed(bytes);
  }

  #consumed(bytes: number): void {
    this.#unconsumed -= bytes;
    this.#exec?.stream.credit(bytes);
  }

  #onInputEnd(): void {
    if (this.#inputEnds) return;
    this.#inputEnds = true;
    void this.#pumpInput();
  }

  #onInput(bytes: Buffer): void {
    if (bytes[0] !== execChannel.stdin) throw violation("a binary message must begin with byte 0");
    const data = bytes.subarray(1);
    this.#inputCredit -= data.length;
    if (this.#inputCredit < 0) throw violation("more input than there was credit for");
    if (this.#inputEnds) throw violation("input after its end");
    this.#stage.add(data);
    void this.#pumpInput();
  }

  /** Sends what is staged, and what comes meanwhile, as the guest has room. */
  async #pumpInput(): Promise<void> {
    if (this.#isPumping) return;
    this.#isPumping = true;
    await this.#opened.promise.catch(() => undefined);
    while (this.#stage.bytes > 0) await this.#writeInput(this.#stage.take());
    this.#isPumping = false;
    if (this.#inputEnds) this.#exec?.stream.endInput();
  }

  async #writeInput(block: Buffer): Promise<void> {
    for (let at = 0; at < block.length; at += inputPieceBytes) {
      const piece = block.subarray(at, at + inputPieceBytes);
      // Input for a command that has ended, or could not be started, is nobody's.
      await this.#exec?.stream.write(piece).catch(() => undefined);
      this.#inputCredit += piece.length;
      this.#send({ type: "credit", bytes: piece.length });
    }
  }

  /** Apart from input, so that a command that does not read can be interrupted. */
  #enqueueControl(message: Control): void {
    this.#controlsWaiting += 1;
    if (this.#controlsWaiting > limits.execControlsWaitingMax) {
      throw violation("too many messages wait for the guest");
    }
    this.#controls = this.#controls.then(async () => {
      try {
        if (this.#exec !== undefined && !this.#isOver) await this.#control(this.#exec, message);
      } catch (error) {
        this.#fail(toForkdError(error));
      } finally {
        this.#controlsWaiting -= 1;
      }
    });
  }

  async #control({ stream }: OpenExec, message: Control): Promise<void> {
    switch (message.type) {
      case "signal":
        return await stream.signal(message.signal);
      case "resize":
        return await stream.resize(message);
      case "detach":
        this.#leaving = stream.leave("keep");
        return await this.#leaving;
    }
  }

  async #run(request: ExecStart | ExecAttach): Promise<void> {
    try {
      const exec = await this.#options.open(request, {
        onStarted: (started) => this.#onStarted(started),
        onOutput: (channel, chunk) => this.#onOutput(channel, chunk),
      });
      this.#exec = exec;
      this.#opened.resolve(exec);
      // The client may have gone meanwhile.
      if (this.#isOver) await this.#leave();
      const end = await exec.ended;
      this.#leaving = Promise.resolve();
      this.#finish({ type: "exit", ...end }, closeCodes.done);
    } catch (error) {
      this.#opened.reject(error);
      const failure = toForkdError(error);
      if (isDetached(error)) {
        this.#leaving = Promise.resolve();
        this.#finish({ type: "detached", reason: failure.message }, closeCodes.done);
      } else {
        this.#fail(failure);
      }
    }
  }

  #onStarted({ id, pid, tty, offset, stdinRoom }: ExecStarted): void {
    this.#inputCredit -= limits.execWindowBytes - stdinRoom;
    this.#send({ type: "started", exec_id: id, pid, tty, offset, stdin_credit: stdinRoom });
  }

  #onOutput(channel: number, chunk: Buffer): void {
    if (this.#isOver) return;
    const message = Buffer.allocUnsafe(1 + chunk.length);
    message[0] = channel;
    chunk.copy(message, 1);
    this.#unconsumed += chunk.length;
    this.#socket.send(message, (error) => {
      const byClient = this.#request?.flow === "client";
      if (!byClient && error == null) this.#consumed(chunk.length);
    });
  }

  #send(message: ExecServerMessage): void {
    if (!this.#isOver) this.#socket.send(JSON.stringify(message));
  }

  #finish(message: ExecServerMessage, code: number): void {
    this.#send(message);
    this.#isOver = true;
    this.#socket.close(code);
    // Not when the client has closed too, which may take it long.
    void this.#leave();
  }

  #fail(failure: ForkdError, code: number = closeCodes.failed): void {
    this.#finish({ type: "error", ...failure.toProblem() }, code);
  }

  #refuse(why: string): void {
    this.#fail(violation(why), closeCodes.violation);
  }

  /** The connection is over before the command: it runs on, or is killed, as was asked for. */
  async #leave(): Promise<void> {
    if (this.#exec === undefined) return;
    const keeps = this.#request?.on_close === "keep" || this.#options.stopping.aborted;
    // A guest that does not answer has ended, or will be.
    this.#leaving ??= this.#exec.stream.leave(keeps ? "keep" : "kill").catch(() => undefined);
    await this.#leaving;
  }
}

/** Input that waits for the guest, in one block however it came; the client's credit bounds it. */
class Stage {
  #block: Buffer | undefined;
  bytes = 0;

  add(data: Buffer): void {
    this.#block ??= Buffer.allocUnsafeSlow(limits.execWindowBytes);
    this.bytes += data.copy(this.#block, this.bytes);
  }

  take(): Buffer {
    const taken = this.#block?.subarray(0, this.bytes) ?? Buffer.alloc(0);
    this.#block = undefined;
    this.bytes = 0;
    return taken;
  }
}

type Control = Extract<ExecClientMessage, { type: "resize" | "signal" | "detach" }>;

function parseMessage(bytes: Buffer): ExecClientMessage {
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString("utf8"));
  } catch (cause) {
    throw new ForkdError("bad_request", "a text message is not valid JSON", { cause });
  }
  const parsed = execClientMessageSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const field = issue?.path.join(".").slice(0, 80) ?? "";
  throw violation(`${field === "" ? "the message" : field}: ${issue?.message}`);
}

function violation(why: string): ForkdError {
  return new ForkdError("bad_request", why, { hint: "docs/exec.md has the messages" });
}

/** The agent's own word for a stream that was left, or taken over. */
function isDetached(error: unknown): boolean {
  return error instanceof ForkdError && "agentCode" in error && error.agentCode === "detached";
}
