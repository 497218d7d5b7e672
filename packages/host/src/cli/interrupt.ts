import type { StopSignal } from "./exit.ts";

/** How long the clean-up after a signal may take; upstream's Python client kills after 5 s. */
export const teardownMs = 4500;

/** Thrown out of an {@link untilStopped} wait by the first SIGINT, SIGTERM or SIGHUP. */
export class Stopped extends Error {
  readonly signal: StopSignal;

  constructor(signal: StopSignal) {
    super(`stopped by ${signal}`);
    this.name = "Stopped";
    this.signal = signal;
  }
}

/**
 * Turns the signals that ask the CLI to end into one abort whose reason is {@link Stopped}. A
 * second signal, or a clean-up beyond {@link teardownMs}, calls `force`.
 */
export function watchStopSignals(force: (signal: StopSignal) => void): AbortSignal {
  const controller = new AbortController();
  const onSignal = (signal: StopSignal): void => {
    if (controller.signal.aborted) {
      force(signal);
      return;
    }
    controller.abort(new Stopped(signal));
    setTimeout(() => force(signal), teardownMs).unref();
  };
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(signal, () => onSignal(signal));
  }
  return controller.signal;
}

/** Waits for `work` or the abort, whichever is first; `work` is not stopped by it. */
export async function untilStopped<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise: stopped, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(signal.reason);
  if (signal.aborted) onAbort();
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([stopped, work]);
  } finally {
    signal.removeEventListener("abort", onAbort);
    work.catch(() => undefined);
  }
}
