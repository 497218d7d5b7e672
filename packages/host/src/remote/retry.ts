import { ForkdError } from "@forkd/api";
import { sleep } from "../lib/deadline.ts";

export interface RetryOptions {
  /** Failures in a row after which it is given up. */
  readonly triesMax: number;
  /** The wait after the first failure; it doubles with each further one. */
  readonly firstWaitMs: number;
  readonly longestWaitMs: number;
  /** Told of every failure that is not the last word. */
  readonly onRetry: (problem: ForkdError, waitMs: number) => void;
}

/** Together about a minute, which a server's restart or a short cut of the network takes. */
export const retryDefaults = {
  triesMax: 7,
  firstWaitMs: 500,
  longestWaitMs: 20_000,
} as const satisfies Partial<RetryOptions>;

/** A server that asks for a longer wait gets this one; it can ask again. */
const askedWaitMaxMs = 60_000;

/** Failures in a row of one thing, each followed by a wait, until there were too many. */
export class Patience {
  readonly #options: RetryOptions;
  #failures = 0;

  constructor(options: RetryOptions) {
    this.#options = options;
  }

  /** There was progress: what fails from now on begins to count anew. */
  reset(): void {
    this.#failures = 0;
  }

  /**
   * Waits for the next try. Throws the failure itself when another try would end the same way or
   * there were too many, and the signal's reason when it aborts.
   */
  async failed(error: unknown, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const { triesMax, onRetry } = this.#options;
    this.#failures += 1;
    if (!(error instanceof ForkdError) || !error.retryable) throw error;
    if (this.#failures >= triesMax) throw error;
    const waitMs = this.#waitMs(error);
    onRetry(error, waitMs);
    await sleep(waitMs, signal);
  }

  /** Random in its upper half, so that many clients of one server do not come back together. */
  #waitMs(error: ForkdError): number {
    const { firstWaitMs, longestWaitMs } = this.#options;
    const doubled = Math.min(firstWaitMs * 2 ** (this.#failures - 1), longestWaitMs);
    const own = doubled * (0.5 + Math.random() / 2);
    return Math.max(own, Math.min(askedWaitMs(error), askedWaitMaxMs));
  }
}

/** What a server asked for with Retry-After, by which it was thrown; see {@link retryLater}. */
function askedWaitMs(error: ForkdError): number {
  return error instanceof RetryLater ? error.waitMs : 0;
}

/** remote_unreachable of a server that said when to come again. */
class RetryLater extends ForkdError {
  readonly waitMs: number;

  constructor(message: string, waitMs: number) {
    super("remote_unreachable", message, { retryAfterSecs: Math.ceil(waitMs / 1000) });
    this.waitMs = waitMs;
  }
}

/**
 * remote_unreachable with the wait that a Retry-After header asks for: seconds, or a date (RFC
 * 9110, 10.2.3). Without one, or with one that makes no sense, the usual waits are used.
 */
export function retryLater(message: string, header: string | undefined): ForkdError {
  const text = header?.trim() ?? "";
  const waitMs = /^\d{1,9}$/.test(text) ? Number(text) * 1000 : Date.parse(text) - Date.now();
  return waitMs > 0
    ? new RetryLater(message, waitMs)
    : new ForkdError("remote_unreachable", message);
}

/** Does `work` until it succeeds; throws as {@link Patience.failed}. Only for what may be repeated. */
export async function retrying<T>(
  options: RetryOptions,
  signal: AbortSignal,
  work: () => Promise<T>,
): Promise<T> {
  const patience = new Patience(options);
  for (;;) {
    try {
      return await work();
    } catch (error) {
      await patience.failed(error, signal);
    }
  }
}
