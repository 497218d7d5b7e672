import { randomBytes } from "node:crypto";
import type { Duplex } from "node:stream";
import { ForkdError, toForkdError } from "@forkd/api";
import type { z } from "zod";
import { withDeadline } from "../lib/deadline.ts";
import { encodeFrame, type Frame, FrameParser, framePayloadBytesMax, frameType } from "./frame.ts";
import { AgentError, type HelloReply, helloReplySchema, parseMessage } from "./messages.ts";
import { AgentStream, type StreamHandlers } from "./stream.ts";

/** What an agent listens for on its first boot, before any host has set a token. */
export const firstAttachToken: Buffer = Buffer.from("FORKD-ATTACH-001", "ascii");

const tokenBytes = 16;
/** What an agent may still send of an old session before the echo of a new one. */
const staleBytesMax = 8 * 1024 * 1024;
const streamIdMax = 0xffff_ffff;

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

  readonly #channel: Duplex;
  readonly #parser = new FrameParser();
  readonly #streams = new Map<number, AgentStream>();
  readonly #echo = randomBytes(tokenBytes);
  #stale: Buffer | undefined = Buffer.alloc(0);
  #staleBytes = 0;
  #lastStream = 0;
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
      this.#streams.delete(stream.id);
    }
  }

  /** Opens a stream with one request. The caller awaits its `reply` and then calls `release`. */
  open(op: object, handlers: StreamHandlers): AgentStream {
    if (this.#failure !== undefined) throw this.#failure;
    const payload = Buffer.from(JSON.stringify(op));
    if (payload.length > framePayloadBytesMax) {
      throw new ForkdError("payload_too_large", "arguments and environment are over 64 KiB", {
        hint: "send large data by stdin",
      });
    }
    const id = this.#nextStreamId();
    const stream = new AgentStream(id, handlers, {
      wire: {
        send: (type, body) => this.#send(type, id, body),
        release: () => this.#streams.delete(id),
      },
    });
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
    const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
    const stream = AgentStream.forReply(0, { resolve, reject });
    this.#streams.set(0, stream);
    const frame = encodeFrame(frameType.request, 0, Buffer.from(JSON.stringify(hello)));
    this.#channel.write(Buffer.concat([token, frame]));
    const payload = await promise;
    this.#streams.delete(0);
    return parseMessage(helloReplySchema, payload);
  }

  #nextStreamId(): number {
    do {
      this.#lastStream = this.#lastStream >= streamIdMax ? 1 : this.#lastStream + 1;
    } while (this.#streams.has(this.#lastStream));
    return this.#lastStream;
  }

  #send(type: number, stream: number, payload: Uint8Array): void {
    if (this.#failure !== undefined) throw this.#failure;
    this.#channel.write(encodeFrame(type, stream, payload));
  }

  #receive(chunk: Buffer): void {
    try {
      const fresh = this.#skipStale(chunk);
      if (fresh === undefined) return;
      for (const frame of this.#parser.push(fresh)) this.#dispatch(frame);
    } catch (error) {
      this.#fail(toForkdError(error));
    }
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
      throw new ForkdError("agent_unavailable", "the guest's agent did not answer the attach");
    }
    this.#stale = bytes.subarray(Math.max(0, bytes.length - tokenBytes + 1));
    return undefined;
  }

  #dispatch(frame: Frame): void {
    // A frame for no stream is the rest of one that the host gave up; a guest may send it freely.
    const stream = this.#streams.get(frame.stream);
    if (stream === undefined) return;
    if (frame.type === frameType.error) {
      this.#streams.delete(frame.stream);
      stream.fail(new AgentError(frame.payload));
    } else {
      stream.receive(frame);
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

function channelBroke(cause: unknown): ForkdError {
  return new ForkdError("agent_unavailable", "the channel to the guest's agent broke", { cause });
}
