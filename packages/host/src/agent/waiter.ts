import { withDeadline } from "../lib/deadline.ts";

/**
 * The waits of one piece of work, one at a time: each with its own deadline, all ended by one
 * failure or by the caller's signal.
 */
export class Waiter {
  readonly #signal: AbortSignal | undefined;
  readonly #onAbort = (): void => this.fail(this.#signal?.reason);
  #failure: { readonly reason: unknown } | undefined;
  #reject: ((reason: unknown) => void) | undefined;

  constructor(signal: AbortSignal | undefined) {
    this.#signal = signal;
    signal?.addEventListener("abort", this.#onAbort, { once: true });
    if (signal?.aborted === true) this.#onAbort();
  }

  /** Ends the wait that is under way, and every later one; the first reason counts. */
  fail(reason: unknown): void {
    this.#failure ??= { reason };
    this.#reject?.(this.#failure.reason);
  }

  /** Throws deadline_exceeded that names `what` was awaited, or the failure. */
  async wait<T>(work: Promise<T>, ms: number, what: string): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    this.#reject = reject;
    work.then(resolve, reject);
    if (this.#failure !== undefined) reject(this.#failure.reason);
    try {
      return await withDeadline(promise, ms, what);
    } finally {
      this.#reject = undefined;
    }
  }

  /** The signal is not listened to any more. */
  close(): void {
    this.#signal?.removeEventListener("abort", this.#onAbort);
  }
}
