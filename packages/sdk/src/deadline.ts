import type { CallName } from "@forkd/api";
import { ForkdError } from "@forkd/api";

/** What upstream's clients wait by default. */
const timeoutDefaultMs = 60_000;
/** Booting a parent, forking hundreds of children under emulation, writing a guest's memory. */
export const timeoutSlowMs = 300_000;
const slowRoutes: ReadonlySet<CallName> = new Set([
  "createSnapshot",
  "createSandboxes",
  "branchSandbox",
  "compactSnapshot",
]);
/** What the daemon may need on top of the time that the request itself grants to the guest. */
const timeoutSlackMs = 10_000;

/** What any call of this package takes. */
export interface CallControl {
  /** Ends the call with the signal's reason. The daemon may have done the work all the same. */
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds until deadline_exceeded, repetitions and the waits before them included. */
  readonly timeoutMs?: number | undefined;
  /** How often a call that may be repeated is sent again; 0 is never. */
  readonly retriesMax?: number | undefined;
}

interface TimedCall extends CallControl {
  readonly body?: unknown;
}

/** A call's own limit, else what its body grants to the guest, else the client's, else usual. */
export function callTimeoutMs(
  name: CallName,
  call: TimedCall,
  clientTimeoutMs: number | null,
): number {
  return call.timeoutMs ?? grantedMs(call.body) ?? clientTimeoutMs ?? usualMs(name);
}

function usualMs(name: CallName): number {
  return slowRoutes.has(name) ? timeoutSlowMs : timeoutDefaultMs;
}

/** A guest command with a time limit of its own must outlive no shorter limit of ours. */
function grantedMs(body: unknown): number | undefined {
  if (typeof body !== "object" || body === null || !("timeout_secs" in body)) return undefined;
  const { timeout_secs: secs } = body;
  return typeof secs === "number" && secs > 0 ? secs * 1000 + timeoutSlackMs : undefined;
}

/** One piece of work's end: its time limit, or the caller's abort. */
export class Deadline {
  readonly signal: AbortSignal;
  readonly #expired: AbortSignal;
  readonly #aborted: AbortSignal | undefined;
  readonly #endsAt: number;
  readonly #late: string;

  /** `what` begins the message of deadline_exceeded: "listSandboxes". */
  constructor(what: string, timeoutMs: number, aborted: AbortSignal | undefined) {
    this.#late = `${what} took longer than ${timeoutMs} ms`;
    this.#endsAt = performance.now() + timeoutMs;
    this.#expired = AbortSignal.timeout(timeoutMs);
    this.#aborted = aborted;
    this.signal = AbortSignal.any([this.#expired, ...(aborted === undefined ? [] : [aborted])]);
  }

  get leftMs(): number {
    return Math.max(0, this.#endsAt - performance.now());
  }

  /** Waits; rejects as soon as the deadline passes or the caller aborts. */
  async sleep(ms: number): Promise<void> {
    const { signal } = this;
    await new Promise<void>((resolve, reject) => {
      const stop = (): void => {
        clearTimeout(timer);
        reject(signal.reason);
      };
      const timer = setTimeout(() => {
        signal.removeEventListener("abort", stop);
        resolve();
      }, ms);
      if (signal.aborted) stop();
      else signal.addEventListener("abort", stop, { once: true });
    });
  }

  /** What the caller should see instead of `thrown`; undefined when the deadline had no part. */
  ending(thrown: unknown): { readonly reason: unknown } | undefined {
    if (this.#aborted?.aborted === true) return { reason: this.#aborted.reason };
    if (!this.#expired.aborted) return undefined;
    return { reason: new ForkdError("deadline_exceeded", this.#late, { cause: thrown }) };
  }
}
