import { randomBytes } from "node:crypto";
import { constants } from "node:os";
import {
  type Attestation,
  type EvalRequest,
  type EvalResult,
  type ExecRequest,
  type ExecResult,
  limits,
} from "@forkd/api";
import type { z } from "zod";
import { withDeadline } from "../lib/deadline.ts";
import { BoundedText, type ByteBudget } from "./bounded-text.ts";
import {
  type AgentEvent,
  clockReplySchema,
  emptyReplySchema,
  evalReplySchema,
  execReplySchema,
  identityReplySchema,
  parseMessage,
  pongReplySchema,
  warmReplySchema,
} from "./messages.ts";
import type { AgentSession } from "./session.ts";
import type { AgentStream } from "./stream.ts";

/** Beyond a command's own deadline: time for the guest to kill it and to say so. */
const graceMs = 5_000;
const entropyBytes = 64;
/** A clock that may be wrong by more is set again. */
const clockErrorMsMax = 20;
const clockAttemptsMax = 5;
/** What upstream's negative exit codes are made from. */
export const signalNumbers: Readonly<Record<string, number>> = constants.signals;

export interface IdentityRequest {
  readonly generation: number;
  readonly hostname: string;
  /** 32 hex digits. */
  readonly machineId: string;
  /** What its network card becomes; null leaves it down. */
  readonly net: GuestNet | null;
}

/** A guest's network, docs/guest-protocol.md. Addresses are texts. */
export interface GuestNet {
  /** A local unicast one, lower case. */
  readonly mac: string;
  readonly addresses: readonly { readonly address: string; readonly prefix: number }[];
  /** The default routes, one a family, and what the guest's connections come from. */
  readonly routes: readonly { readonly gateway: string; readonly source: string }[];
  /** Its name server; null leaves the image's settings. */
  readonly dns: string | null;
}

export interface WarmRequest {
  readonly env: Readonly<Record<string, string>>;
  readonly user: string;
  readonly workdir: string;
  readonly runtime: "python" | "node" | null;
  readonly imports: readonly string[];
  readonly command: string | null;
  readonly ready: object | null;
  readonly timeoutMs: number;
}

export type AgentPong = z.infer<typeof pongReplySchema>;

/** Gives the guest fresh entropy, the time and its names; returns what the guest proved. */
export async function identify(
  session: AgentSession,
  identity: IdentityRequest,
  timeoutMs: number,
): Promise<Attestation> {
  const sent = performance.now();
  const op = {
    op: "identity",
    generation: identity.generation,
    entropy_b64: randomBytes(entropyBytes).toString("base64"),
    wall_clock_ns: wallClockNs().toString(),
    hostname: identity.hostname,
    machine_id: identity.machineId,
    ...(identity.net !== null && { net: identity.net }),
  };
  const { steps_ms, mac, ...proof } = await session.request(op, identityReplySchema, timeoutMs);
  const worked = Object.values(steps_ms).reduce((sum, ms) => sum + ms, 0);
  const underWay = Math.max(0, performance.now() - sent - worked);
  const clock_uncertainty_ms = await settleClock(session, { underWay, timeoutMs });
  const ip = mac === null ? null : (identity.net?.routes[0]?.source ?? null);
  return { ...proof, clock_uncertainty_ms, mac, ip };
}

/**
 * A time that was under way for long is wrong by as much. On a busy host it is sent again until one
 * arrives quickly; returns the bound on the last one's error, ms.
 */
async function settleClock(
  session: AgentSession,
  { underWay, timeoutMs }: { readonly underWay: number; readonly timeoutMs: number },
): Promise<number> {
  let boundMs = underWay;
  for (let attempt = 0; boundMs > clockErrorMsMax && attempt < clockAttemptsMax; attempt += 1) {
    const sent = performance.now();
    await setClock(session, timeoutMs);
    boundMs = performance.now() - sent;
  }
  return Math.round(boundMs * 1000) / 1000;
}

/**
 * Sets the guest's clock, which stood while its VM did. Throws what the session throws; a bound on
 * the error is what the request was under way.
 */
export async function setClock(session: AgentSession, timeoutMs: number): Promise<void> {
  const op = { op: "clock", wall_clock_ns: wallClockNs().toString() };
  await session.request(op, clockReplySchema, timeoutMs);
}

/**
 * The host's wall clock, nanoseconds since 1970, half a millisecond wrong at most. Not from the
 * monotonic clock: in a daemon of many days that is elsewhere.
 */
function wallClockNs(): bigint {
  return BigInt(Date.now()) * 1_000_000n + 500_000n;
}

export function ping(session: AgentSession, timeoutMs: number): Promise<AgentPong> {
  return session.request({ op: "ping" }, pongReplySchema, timeoutMs);
}

/** Throws warmup_failed or warmup_timeout with the warm-up's last words. */
export async function warm(session: AgentSession, request: WarmRequest): Promise<string> {
  const op = {
    op: "warm",
    env: request.env,
    ...(request.user === "" ? {} : { user: request.user }),
    ...(request.workdir === "" ? {} : { cwd: request.workdir }),
    ...(request.runtime === null ? {} : { runtime: request.runtime, imports: request.imports }),
    ...(request.command === null ? {} : { cmd: request.command }),
    ...(request.ready === null ? {} : { ready: request.ready }),
    timeout_ms: request.timeoutMs,
  };
  const reply = await session.request(op, warmReplySchema, request.timeoutMs + graceMs);
  return reply.detail ?? reply.runtime;
}

/** Closes the guest's gate and quiets its agent, so that what is captured is at rest. */
export async function freeze(session: AgentSession, timeoutMs: number): Promise<void> {
  await session.request({ op: "freeze" }, emptyReplySchema, timeoutMs);
}

/**
 * Runs a command to its end and collects both outputs, each up to the bound. When `signal` aborts,
 * the command's process group is killed and the signal's reason thrown.
 */
export async function exec(
  session: AgentSession,
  request: ExecRequest,
  signal?: AbortSignal,
): Promise<ExecResult> {
  signal?.throwIfAborted();
  const timeoutMs = Math.ceil(request.timeout_secs * 1000);
  using stdout = new BoundedText(limits.execOutputBytesMax, session.outputs);
  using stderr = new BoundedText(limits.execOutputBytesMax, session.outputs);
  const stream = session.open(execOp(request, timeoutMs), {
    onStdout: (chunk) => stdout.append(chunk),
    onStderr: (chunk) => stderr.append(chunk),
  });
  const feed = async (): Promise<void> => {
    if (request.stdin === null || request.stdin === undefined) return;
    await stream.write(Buffer.from(request.stdin));
    stream.endInput();
  };
  const payload = await settle(stream, { timeoutMs, signal, feed });
  const reply = parseMessage(execReplySchema, payload);
  return {
    stdout: stdout.toString(),
    stderr: stderr.toString(),
    exit_code: exitCode(reply.exit_code, reply.signal),
    signal: reply.signal,
    timed_out: reply.timed_out,
    truncated: stdout.truncated || stderr.truncated,
    error: reply.timed_out ? `the command was killed after ${timeoutMs} ms` : null,
    duration_ms: reply.duration_ms,
  };
}

function execOp(request: ExecRequest, timeoutMs: number): object {
  return {
    op: "exec",
    argv: request.args,
    env: request.env,
    ...(request.cwd == null ? {} : { cwd: request.cwd }),
    ...(request.user == null ? {} : { user: request.user }),
    stdin: request.stdin != null,
    timeout_ms: timeoutMs,
  };
}

/** Upstream's convention: a command that a signal ended has the signal's number, negative. */
export function exitCode(code: number | null, signal: string | null): number {
  if (code !== null) return code;
  return -(signalNumbers[signal ?? "SIGKILL"] ?? 9);
}

/**
 * Evaluates code in the guest's warm interpreter. When `signal` aborts, the code is interrupted and
 * the signal's reason thrown.
 */
export async function evaluate(
  session: AgentSession,
  request: EvalRequest,
  signal?: AbortSignal,
): Promise<EvalResult> {
  signal?.throwIfAborted();
  const timeoutMs = Math.ceil(request.timeout_secs * 1000);
  const code = Buffer.from(request.code);
  using output = new EvalOutput(session.outputs);
  const op = { op: "eval", code_bytes: code.length, timeout_ms: timeoutMs };
  const stream = session.open(op, output.handlers);
  const payload = await settle(stream, { timeoutMs, signal, feed: () => stream.write(code) });
  const reply = parseMessage(evalReplySchema, payload);
  return {
    result: reply.result ?? output.part("result"),
    result_json: reply.result_json ?? output.part("result_json"),
    stdout: output.stdout.toString(),
    stderr: output.stderr.toString(),
    error: reply.error,
    traceback: reply.traceback ?? output.part("traceback"),
    exit_code: reply.ok ? 0 : 1,
    timed_out: reply.timed_out,
    duration_ms: reply.duration_ms,
  };
}

/** What an eval printed, and the results that were too long for one frame. */
class EvalOutput implements Disposable {
  readonly stdout: BoundedText;
  readonly stderr: BoundedText;
  readonly #parts = new Map<string, BoundedText>();
  readonly #budget: ByteBudget;

  constructor(budget: ByteBudget) {
    this.#budget = budget;
    this.stdout = new BoundedText(limits.execOutputBytesMax, budget);
    this.stderr = new BoundedText(limits.execOutputBytesMax, budget);
  }

  readonly handlers = {
    onStdout: (chunk: Buffer): void => this.stdout.append(chunk),
    onStderr: (chunk: Buffer): void => this.stderr.append(chunk),
    onEvent: (event: AgentEvent): void => {
      const known = ["result", "result_json", "traceback"].includes(event.event);
      if (!known || event.part === undefined) return;
      const text = this.#parts.get(event.event) ?? this.#newPart(event.event);
      text.append(Buffer.from(event.part));
    },
  };

  [Symbol.dispose](): void {
    for (const text of [this.stdout, this.stderr, ...this.#parts.values()]) text[Symbol.dispose]();
  }

  #newPart(name: string): BoundedText {
    const text = new BoundedText(limits.execOutputBytesMax, this.#budget);
    this.#parts.set(name, text);
    return text;
  }

  part(name: string): string | null {
    return this.#parts.get(name)?.toString() ?? null;
  }
}

interface Settling {
  readonly timeoutMs: number;
  readonly signal: AbortSignal | undefined;
  readonly feed: () => Promise<void>;
}

/** Feeds a stream and waits for its reply; what nobody waits for any more is killed. */
async function settle(stream: AgentStream, { timeoutMs, signal, feed }: Settling): Promise<Buffer> {
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  aborted.catch(() => undefined);
  const onAbort = (): void => reject(signal?.reason);
  signal?.addEventListener("abort", onAbort, { once: true });
  if (signal?.aborted) onAbort();
  let isSettled = false;
  try {
    const fed = feed();
    // A command may end before it has read its input: then the reply says how, not the feeding.
    fed.catch(() => undefined);
    const reply = withDeadline(stream.reply, timeoutMs + graceMs, "the guest's answer");
    const payload = await Promise.race([reply, aborted]);
    isSettled = true;
    return payload;
  } finally {
    signal?.removeEventListener("abort", onAbort);
    if (!isSettled) stream.kill();
    stream.release();
  }
}
