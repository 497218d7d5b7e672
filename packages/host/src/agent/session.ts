import { randomBytes } from "node:crypto";
import type { Duplex } from "node:stream";
import { ForkdError, limits, toForkdError } from "@forkd/api";
import type { z } from "zod";
import { ChannelReset } from "../lib/channel-reset.ts";
import { withDeadline } from "../lib/deadline.ts";
import { ByteBudget } from "./bounded-text.ts";
import { encodeFrame, type Frame, FrameParser, framePayloadBytesMax, frameType } from "./frame.ts";
import { AgentError, type HelloReply, helloReplySchema, parseMessage } from "./messages.ts";
import { AgentStream, type StreamHandlers, type Wire } from "./stream.ts";

/** What an agent listens for on its first boot, before any host has set a token. */
export const firstAttachToken: Buffer = Buffer.from("FORKD-ATTACH-001", "ascii");

const tokenBytes = 16;
/** What an agent may still send of an old session before the echo of a new one. */
const staleBytesMax = 8 * 1024 * 1024;
const streamIdMax = 0xffff_ffff;
/** Requests without their final frame, given up or not; the agent takes as many (the protocol). */
const openStreamsMax = 64;
/** A guest that owes so many answers, each for so long after it was told to end, is broken. */
const overdueStreamsMax = openStreamsMax / 2;
const overdueMs = 60_000;
/** What a guest may leave unread; all streams at their bounds are less. */
const unreadBytesMax = 24 * 1024 * 1024;
/** How long one guest may keep the event loop before others have their turn. */
const turnMsMax = 4;

/** What the outputs of all guests may take in this process. */
const processOutputs = new ByteBudget(limits.guestOutputBytesMax);

export interface AttachOptions {
  /** What this agent listens for, see the protocol. */
  readonly token: Uint8Array;
  /** What it shall listen for after this attach: 16 bytes, random when absent. */
  readonly nextToken?: Buffer;
  /** Milliseconds for the agent to answer the attach. */
  readonly helloTimeoutMs: number;
}

/**
 * One attached session with a guest's agent.
 *
 * Requests may be sent at once after {@link AgentSession.attach}: the agent handles them in order,
 * after its `hello`. When the channel breaks, everything open fails with agent_unavailable.
 */
export class AgentSession {
  /** The token that the next attach to this agent needs; keep it with the guest. */
  readonly nextToken: Buffer;
  /** The agent's answer to the attach. */
  readonly hello: Promise<HelloReply>;
  /** Resolves when the channel has ended, whoever ended it. */
  readonly ended: Promise<ForkdError>;
  /** What the outputs of all calls in flight may take. */
  readonly outputs = new ByteBudget(limits.guestOutputPerSandboxBytesMax, processOutputs);

  readonly #channel: Duplex;
  readonly #parser = new FrameParser();
  readonly #streams = new Map<number, AgentStream>();
  readonly #echo = randomBytes(tokenBytes);
  #stale: Buffer | undefined = Buffer.alloc(0);
  #staleBytes = 0;
  #lastStream = 0;
  #turnMs = 0;
  #hasTurn = false;
  #failure: ForkdError | undefined;
  readonly #end: (failure: ForkdError) => void;

  private constructor(channel: Duplex, options: AttachOptions) {
    this.#channel = channel;
    this.nextToken = options.nextToken ?? randomBytes(tokenBytes);
    const { promise, resolve } = Promise.withResolvers<ForkdError>();
    this.ended = promise;
    this.#end = resolve;
    channel.on("data", (chunk: Buffer) => this.#receive(chunk));
    channel.on("error", (error) => this.#fail(channelBroke(error)));
    channel.on("close", () => this.#fail(channelBroke(undefined)));
    this.hello = withDeadline(
      this.#sendHello(options.token),
      options.helloTimeoutMs,
      "the agent's hello",
    );
    this.hello.catch((error: unknown) => this.#fail(toForkdError(error)));
  }

  /** Writes the attach token and `hello`; await {@link AgentSession.hello} for the answer. */
  static attach(channel: Duplex, options: AttachOptions): AgentSession {
    return new AgentSession(channel, options);
  }

  get failure(): ForkdError | undefined {
    return this.#failure;
  }

  /** Sends one request and waits for its one reply. Throws AgentError, deadline_exceeded. */
  async request<T>(op: object, schema: z.ZodType<T>, timeoutMs: number): Promise<T> {
    const stream = this.open(op, {});
    try {
      const payload = await withDeadline(stream.reply, timeoutMs, "the agent's answer");
      return parseMessage(schema, payload);
    } finally {
      stream.release();
    }
  }

  /**
   * Opens a stream with one request. The caller awaits its `reply` and then calls `release`. Throws
   * payload_too_large, too_many_requests, and what the session failed with.
   */
  open(op: object, handlers: StreamHandlers): AgentStream {
    this.#requirePlace();
    const payload = Buffer.from(JSON.stringify(op));
    if (payload.length > framePayloadBytesMax) {
      throw new ForkdError("payload_too_large", "arguments and environment are over 64 KiB", {
        hint: "send large data by stdin",
      });
    }
    const id = this.#nextStreamId();
    const stream = new AgentStream(id, handlers, this.#wire(id));
    this.#streams.set(id, stream);
    this.#send(frameType.request, id, payload);
    return stream;
  }

  /** Ends the session; the guest runs on. */
  close(): void {
    this.#fail(new ForkdError("agent_unavailable", "the session with the guest was closed"));
  }

  async #sendHello(token: Uint8Array): Promise<HelloReply> {
    const hello = {
      op: "hello",
      protocol: 1,
      echo_b64: this.#echo.toString("base64"),
      next_token_b64: this.nextToken.toString("base64"),
    };
    const stream = new AgentStream(0, {}, this.#wire(0));
    this.#streams.set(0, stream);
    const frame = encodeFrame(frameType.request, 0, Buffer.from(JSON.stringify(hello)));
    this.#channel.write(Buffer.concat([token, frame]));
    return parseMessage(helloReplySchema, await stream.reply);
  }

  #nextStreamId(): number {
    do {
      this.#lastStream = this.#lastStream >= streamIdMax ? 1 : this.#lastStream + 1;
    } while (this.#streams.has(this.#lastStream));
    return this.#lastStream;
  }

  #requirePlace(): void {
    if (this.#failure === undefined && this.#streams.size >= openStreamsMax) {
      const given = [...this.#streams.values()].map(({ releasedAt }) => releasedAt);
      const before = performance.now() - overdueMs;
      const overdue = given.filter((at) => at !== undefined && at < before).length;
      if (overdue < overdueStreamsMax) {
        const message = `${this.#streams.size} requests are open in the guest already`;
        throw new ForkdError("too_many_requests", message);
      }
      this.#fail(broken(`the guest leaves ${overdue} requests without an end`));
    }
    if (this.#failure !== undefined) throw this.#failure;
  }

  #wire(id: number): Wire {
    return { send: (type, payload) => this.#send(type, id, payload) };
  }

  #send(type: number, stream: number, payload: Uint8Array): void {
    if (this.#failure !== undefined) return;
    this.#channel.write(encodeFrame(type, stream, payload));
    if (this.#channel.writableLength > unreadBytesMax) {
      this.#fail(broken("the guest's agent does not read what it is sent"));
    }
  }

  #receive(chunk: Buffer): void {
    const began = performance.now();
    try {
      const fresh = this.#skipStale(chunk);
      if (fresh !== undefined) this.#dispatchAll(fresh);
    } catch (error) {
      this.#fail(toForkdError(error));
    }
    this.#endTurnAfter(performance.now() - began);
  }

  #dispatchAll(bytes: Buffer): void {
    for (const frame of this.#parser.push(bytes)) {
      this.#dispatch(frame);
      // Whoever handled the frame may have closed the session.
      if (this.#failure !== undefined) return;
    }
  }

  /** A guest that floods its host gets its turn of each round of the event loop, and no more. */
  #endTurnAfter(ms: number): void {
    this.#turnMs += ms;
    if (this.#turnMs > turnMsMax) this.#channel.pause();
    if (this.#hasTurn) return;
    this.#hasTurn = true;
    setImmediate(() => {
      this.#hasTurn = false;
      this.#turnMs = 0;
      if (this.#channel.isPaused()) this.#channel.resume();
    });
  }

  /** Drops what an older session left in the channel, up to and with the echo of this one. */
  #skipStale(chunk: Buffer): Buffer | undefined {
    if (this.#stale === undefined) return chunk;
    const bytes = Buffer.concat([this.#stale, chunk]);
    const at = bytes.indexOf(this.#echo);
    if (at >= 0) {
      this.#stale = undefined;
      return bytes.subarray(at + tokenBytes);
    }
    this.#staleBytes += chunk.length;
    if (this.#staleBytes > staleBytesMax) {
      throw broken("the guest's agent did not answer the attach");
    }
    this.#stale = bytes.subarray(Math.max(0, bytes.length - tokenBytes + 1));
    return undefined;
  }

  /** The final frame of a stream is its last one, and a guest speaks only when it was asked. */
  #dispatch(frame: Frame): void {
    const stream = this.#streams.get(frame.stream);
    if (stream === undefined) throw broken("the guest sent a frame for a request never made");
    if (frame.type === frameType.error) stream.fail(new AgentError(frame.payload));
    else stream.receive(frame);
    if (frame.type === frameType.reply || frame.type === frameType.error) {
      this.#streams.delete(frame.stream);
    }
  }

  #fail(failure: ForkdError): void {
    if (this.#failure !== undefined) return;
    this.#failure = failure;
    const streams = [...this.#streams.values()];
    this.#streams.clear();
    for (const stream of streams) stream.fail(failure);
    this.#channel.destroy();
    this.#end(failure);
  }
}

function broken(message: string): ForkdError {
  return new ForkdError("agent_unavailable", message);
}

function channelBroke(cause: unknown): ForkdError {
  if (cause instanceof ChannelReset) return cause;
  return new ForkdError("agent_unavailable", "the channel to the guest's agent broke", { cause });
}
