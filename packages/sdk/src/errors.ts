import type { ErrorCode, EvalResult } from "@forkd/api";
import { ForkdError } from "@forkd/api";

interface ControllerAnswer {
  readonly status: number;
  /** The answer's JSON, or its text when it is none. */
  readonly body: unknown;
  readonly url: string;
  readonly hint: string;
  /** From Retry-After; absent leaves it to the code. */
  readonly retryAfterSecs?: number;
}

/**
 * The daemon answered with a status of 400 or more. `code` and `hint` are the daemon's own; for an
 * answer in another shape (a proxy's) `code` is the nearest one.
 */
export class ControllerError extends ForkdError {
  readonly body: unknown;
  readonly url: string;
  readonly #status: number;

  constructor(code: ErrorCode, message: string, answer: ControllerAnswer) {
    const { hint, retryAfterSecs } = answer;
    super(code, message, { hint, ...(retryAfterSecs !== undefined && { retryAfterSecs }) });
    this.name = "ControllerError";
    this.body = answer.body;
    this.url = answer.url;
    this.#status = answer.status;
  }

  /** The answer's HTTP status. */
  override get status(): number {
    return this.#status;
  }
}

/** The code that a guest was given to evaluate failed. */
export class GuestEvalError extends Error {
  /** All that the guest answered: traceback, output, whether its time was over. */
  readonly result: EvalResult;

  constructor(result: EvalResult) {
    super(`eval error: ${result.error}`);
    this.name = "GuestEvalError";
    this.result = result;
  }
}
