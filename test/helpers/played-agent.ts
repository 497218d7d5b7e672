import type { Socket } from "node:net";
import { encodeFrame, type Frame, FrameParser, frameType } from "@forkd/host/agent/frame.ts";

export type Op = Readonly<Record<string, unknown>>;

/** Takes one request in place of the honest answer. */
export type Answer = (agent: PlayedAgent, op: Op, stream: number) => void;

const tokenBytes = 16;

/** A guest's agent at the other end of a socket: honest, but for what `answers` does instead. */
export class PlayedAgent {
  readonly socket: Socket;
  readonly #answers: Readonly<Record<string, Answer>>;
  readonly #parser = new FrameParser();
  #head = Buffer.alloc(0);

  constructor(socket: Socket, answers: Readonly<Record<string, Answer>> = {}) {
    this.socket = socket;
    this.#answers = answers;
    socket.on("data", (chunk: Buffer) => this.#receive(chunk));
    socket.on("error", () => undefined);
  }

  raw(bytes: Uint8Array): boolean {
    return !this.socket.destroyed && this.socket.write(bytes);
  }

  send(type: number, stream: number, payload: object | Uint8Array): boolean {
    const body = payload instanceof Uint8Array ? payload : Buffer.from(JSON.stringify(payload));
    return this.raw(encodeFrame(type, stream, body));
  }

  reply(stream: number, payload: object | Uint8Array): boolean {
    return this.send(frameType.reply, stream, payload);
  }

  /** Sends as much of it as the host takes, for as long as it does. */
  flood(bytes: Uint8Array): void {
    while (!this.socket.destroyed) {
      if (this.raw(bytes)) continue;
      this.socket.once("drain", () => this.flood(bytes));
      return;
    }
  }

  /** Sends one byte at a time. */
  drip(bytes: Uint8Array, everyMs: number): void {
    let at = 0;
    const timer = setInterval(() => {
      if (this.socket.destroyed || at === bytes.length) clearInterval(timer);
      else this.raw(bytes.subarray(at, ++at));
    }, everyMs);
  }

  #receive(chunk: Buffer): void {
    let bytes = chunk;
    if (this.#head.length < tokenBytes) {
      const all = Buffer.concat([this.#head, chunk]);
      this.#head = all.subarray(0, tokenBytes);
      bytes = all.subarray(tokenBytes);
    }
    for (const frame of this.#parser.push(bytes)) this.#take(frame);
  }

  #take({ type, stream, payload }: Frame): void {
    if (type !== frameType.request) return;
    const op: Op = JSON.parse(payload.toString("utf8"));
    const name = String(op["op"]);
    const answer = this.#answers[name] ?? honest[name];
    if (answer === undefined) this.reply(stream, {});
    else answer(this, op, stream);
  }
}

export const helloReply = {
  protocol: 1,
  agent: "played",
  boot_id: "b",
  generation: 0,
  gate: "closed",
  warm: "ready",
  runtime: "python",
};

export const execReply = { exit_code: 0, signal: null, timed_out: false, duration_ms: 1 };

export function identityReply(op: Op) {
  return {
    generation: op["generation"],
    entropy_bytes: 64,
    crng_reseeded: true,
    clock_skew_before_ms: 0,
    clock_skew_after_ms: 0,
    hostname: op["hostname"],
    machine_id: op["machine_id"],
    hooks: [],
    reseeded: ["random"],
    reseed_pending: false,
    steps_ms: { system: 1 },
  };
}

/** What an agent does; what is not here is answered with an empty object. */
export const honest: Readonly<Record<string, Answer>> = {
  hello: (agent, op, stream) => {
    agent.raw(Buffer.from(String(op["echo_b64"]), "base64"));
    agent.reply(stream, helloReply);
  },
  identity: (agent, op, stream) => {
    agent.reply(stream, identityReply(op));
  },
  clock: (agent, _, stream) => {
    agent.reply(stream, { clock_skew_before_ms: 0 });
  },
  thaw: (agent, _, stream) => {
    agent.reply(stream, { hold_left_ms: 0 });
  },
  ping: (agent, _, stream) => {
    const numbers = { numpy_version: "1", pid: 1, agent_lang: "c" };
    agent.reply(stream, { pong: true, warmup_ready: true, ...numbers });
  },
  exec: (agent, op, stream) => {
    agent.send(frameType.event, stream, { event: "started", pid: 7 });
    agent.send(frameType.stdout, stream, Buffer.from(`${JSON.stringify(op["argv"])}\n`));
    agent.reply(stream, execReply);
  },
};
