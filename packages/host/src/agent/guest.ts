import { randomBytes } from "node:crypto";
import { constants } from "node:os";
import { type Attestation, type ExecRequest, type ExecResult, limits } from "@forkd/api";
import type { z } from "zod";
import { BoundedText } from "./bounded-text.ts";
import {
  clockReplySchema,
  emptyReplySchema,
  execReplySchema,
  identityReplySchema,
  parseMessage,
  pongReplySchema,
  warmReplySchema,
} from "./messages.ts";
import type { AgentSession } from "./session.ts";
import { graceMs, settle } from "./settle.ts";

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
