import { connect, type Socket } from "node:net";
import { ForkdError, limits, toForkdError } from "@forkd/api";
import { z } from "zod";
import { withDeadline } from "../lib/deadline.ts";
import type { Target } from "./parse.ts";

/**
 * The client of the agent's TCP door (docs/guest-protocol.md): one connection, one JSON line each
 * way. What comes back is a guest's word: bounded, and checked before it is used.
 */

const connectTimeoutMs = 5000;
/** What a command's own timeout leaves for the way there and back, as upstream's clients have it. */
export const graceMs = 5000;
/** Both outputs at their bound, each byte as a six-character JSON escape, and the rest. */
export const answerBytesMax = 2 * limits.execOutputBytesMax * 6 + 64 * 1024;

export interface Exchange {
  readonly target: Target;
  /** One JSON object; the line feed is added. */
  readonly line: string;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

/** How a line gets to an agent and its answer back; see also netns.ts. */
export type ExchangeLine = (exchange: Exchange) => Promise<string>;

/** Throws agent_unavailable, deadline_exceeded. */
export const exchangeLine: ExchangeLine = async (exchange) => {
  const { host, port } = exchange.target;
  const where = `${host}:${port}`;
  const socket = connect({ host, port, allowHalfOpen: true });
  const abort = (): void => void socket.destroy(toForkdError(exchange.signal?.reason));
  exchange.signal?.addEventListener("abort", abort, { once: true });
  try {
    await withDeadline(connected(socket, where), connectTimeoutMs, `connecting to ${where}`);
    socket.end(`${exchange.line}\n`);
    const answer = answerOf(socket, where);
    return await withDeadline(answer, exchange.timeoutMs, `the agent's answer from ${where}`);
  } finally {
    exchange.signal?.removeEventListener("abort", abort);
    socket.destroy();
  }
};

function unavailable(where: string, why: string, cause?: unknown): ForkdError {
  return new ForkdError("agent_unavailable", `the guest agent at ${where} ${why}`, {
    hint: "check the address; a sandbox of the daemon is reached with --id ID instead",
    cause,
  });
}

function connected(socket: Socket, where: string): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.once("connect", resolve);
    socket.once("error", (error) => reject(unavailable(where, `is not there: ${error.message}`)));
  });
}

function answerOf(socket: Socket, where: string): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  return new Promise((resolve, reject) => {
    socket.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes > answerBytesMax) reject(unavailable(where, "answers without an end"));
      else chunks.push(chunk);
    });
    socket.once("end", () => resolve(Buffer.concat(chunks).toString("utf8")));
    socket.once("error", (error) => reject(unavailable(where, `broke off: ${error.message}`)));
    socket.once("close", () => reject(unavailable(where, "closed the connection")));
  });
}

const failureSchema = z.object({ error: z.string().nullish(), traceback: z.string().nullish() });

const execAnswerSchema = failureSchema.extend({
  stdout: z.string().default(""),
  stderr: z.string().default(""),
  exit_code: z.int(),
  timed_out: z.boolean().default(false),
});

const evalAnswerSchema = failureSchema.extend({
  result: z.string().nullish(),
  result_json: z.string().nullish(),
  stack: z.string().nullish(),
  exit_code: z.int().default(0),
  timed_out: z.boolean().default(false),
});

/** Upstream's agents send less; what they lack has a default. */
const pongAnswerSchema = z.object({
  pong: z.literal(true),
  numpy_version: z.string().default("not-installed"),
  pid: z.int(),
  agent_lang: z.string().default("python"),
  warmup_ready: z.boolean().default(false),
});

export type ExecAnswer = z.infer<typeof execAnswerSchema>;
export type EvalAnswer = z.infer<typeof evalAnswerSchema>;
export type PongAnswer = z.infer<typeof pongAnswerSchema>;

/** The three actions of the TCP door over any way to exchange a line. */
export class TcpAgent {
  readonly #target: Target;
  readonly #exchange: ExchangeLine;
  readonly #signal: AbortSignal;

  constructor(target: Target, signal: AbortSignal, exchange: ExchangeLine = exchangeLine) {
    this.#target = target;
    this.#signal = signal;
    this.#exchange = exchange;
  }

  ping(): Promise<PongAnswer> {
    return this.#ask({ action: "ping" }, graceMs, pongAnswerSchema);
  }

  exec(args: readonly string[], timeoutSecs: number): Promise<ExecAnswer> {
    const request = { action: "exec", args, timeout: timeoutSecs };
    return this.#ask(request, timeoutSecs * 1000 + graceMs, execAnswerSchema);
  }

  eval(code: string, timeoutSecs: number): Promise<EvalAnswer> {
    return this.#ask({ action: "eval", code }, timeoutSecs * 1000 + graceMs, evalAnswerSchema);
  }

  async #ask<T>(request: object, timeoutMs: number, schema: z.ZodType<T>): Promise<T> {
    const line = JSON.stringify(request);
    const exchange = { target: this.#target, line, timeoutMs, signal: this.#signal };
    const text = await this.#exchange(exchange);
    const parsed = schema.safeParse(parseJson(text));
    if (parsed.success) return parsed.data;
    const where = `${this.#target.host}:${this.#target.port}`;
    throw unavailable(where, `does not speak forkd's protocol: ${text.slice(0, 80).trim()}`);
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
