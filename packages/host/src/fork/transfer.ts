import { ForkdError, limits } from "@forkd/api";
import { type RetryOptions, retryDefaults } from "../remote/retry.ts";

/** What pushing and pulling have in common. */
export interface TransferOptions {
  /** For AWS's variables. */
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly signal: AbortSignal;
  /** `totalBytes` is null when nobody says. */
  readonly onBytes: (doneBytes: number, totalBytes: number | null) => void;
  /** A line for people: what is done now, or why something is tried again. */
  readonly onNotice: (text: string) => void;
}

/** The usual patience, which tells of every failure that it does not give up at. */
export function transferRetry(onNotice: (text: string) => void): RetryOptions {
  return {
    ...retryDefaults,
    onRetry: (problem, waitMs) => {
      const wait = waitMs < 1000 ? "" : ` in ${Math.round(waitMs / 1000)} s`;
      onNotice(`${problem.message}; trying again${wait}`);
    },
  };
}

/** Gives `work` a signal that aborts with the caller's, and with deadline_exceeded in the end. */
export async function withTransferDeadline<T>(
  signal: AbortSignal,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const late = new AbortController();
  const message = `the transfer took longer than ${limits.transferMaxSecs} s`;
  const timer = setTimeout(
    () => late.abort(new ForkdError("deadline_exceeded", message)),
    limits.transferMaxSecs * 1000,
  );
  try {
    return await work(AbortSignal.any([signal, late.signal]));
  } finally {
    clearTimeout(timer);
  }
}
