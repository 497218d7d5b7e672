import { ForkdError } from "@forkd/api";

/**
 * Waits for `work`, at most `ms` milliseconds. Throws deadline_exceeded that names `what` was
 * awaited; `work` itself is not stopped, so the caller must own a way to end it.
 */
export async function withDeadline<T>(work: Promise<T>, ms: number, what: string): Promise<T> {
  const { promise: expired, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    reject(new ForkdError("deadline_exceeded", `${what} took longer than ${ms} ms`));
  }, ms);
  try {
    return await Promise.race([work, expired]);
  } finally {
    clearTimeout(timer);
    work.catch(() => undefined);
  }
}

/** Waits for `work`, which goes on, or throws the signal's reason when it aborts first. */
export async function orAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(signal?.reason);
  signal?.addEventListener("abort", onAbort, { once: true });
  try {
    if (signal?.aborted) onAbort();
    return await Promise.race([work, aborted]);
  } finally {
    signal?.removeEventListener("abort", onAbort);
    work.catch(() => undefined);
  }
}

/** A bound of something that is given up by a signal. */
export interface Bound {
  /** Null: there is none. */
  readonly ms: number | null;
  /** The signal's reason then. */
  readonly late: () => ForkdError;
}

/** A signal of something with a bound; to be disposed of when that is over. */
export interface BoundedSignal extends Disposable {
  readonly signal: AbortSignal;
}

/** Aborts with the given signal, or when the bound is reached. */
export function boundedSignal(signal: AbortSignal | undefined, { ms, late }: Bound): BoundedSignal {
  const over = new AbortController();
  const timer = ms === null ? undefined : setTimeout(() => over.abort(late()), Math.max(0, ms));
  return {
    signal: signal === undefined ? over.signal : AbortSignal.any([signal, over.signal]),
    [Symbol.dispose]: () => clearTimeout(timer),
  };
}

/** Resolves after `ms`; rejects with the signal's reason when it aborts first. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", onAbort);
      resolve();
    }, ms);
    if (signal?.aborted) onAbort();
    else signal?.addEventListener("abort", onAbort, { once: true });
  });
}
