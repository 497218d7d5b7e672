import type { RouteName } from "@forkd/api";
import { ForkdError } from "@forkd/api";

/** What upstream's clients wait by default. */
const timeoutDefaultMs = 60_000;
/** Booting a parent, or forking hundreds of children under emulation. */
const timeoutSlowMs = 300_000;
const slowRoutes: ReadonlySet<RouteName> = new Set(["createSnapshot", "createSandboxes"]);
/** What the daemon may need on top of the time that the request itself grants to the guest. */
const timeoutSlackMs = 10_000;

interface DeadlineRequest {
  readonly body?: unknown;
  readonly signal?: AbortSignal;
  readonly timeoutMs?: number;
}

/** One call's end: its own time limit, or the caller's abort. */
export class Deadline {
  readonly signal: AbortSignal;
  readonly #expired: AbortSignal;
  readonly #aborted: AbortSignal | undefined;
  readonly #what: string;

  constructor(name: RouteName, request: DeadlineRequest, clientTimeoutMs: number | null) {
    const timeoutMs =
      request.timeoutMs ?? grantedMs(request.body) ?? clientTimeoutMs ?? usualMs(name);
    this.#what = `${name} took longer than ${timeoutMs} ms`;
    this.#expired = AbortSignal.timeout(timeoutMs);
    this.#aborted = request.signal;
    const signals = request.signal === undefined ? [] : [request.signal];
    this.signal = AbortSignal.any([this.#expired, ...signals]);
  }

  /** Turns what a failed call threw into what its caller should see. */
  explain(thrown: unknown, baseUrl: string): unknown {
    if (thrown instanceof ForkdError) return thrown;
    if (this.#aborted?.aborted === true) return this.#aborted.reason;
    if (this.#expired.aborted) {
      return new ForkdError("deadline_exceeded", this.#what, { cause: thrown });
    }
    const reason = `no daemon answers at ${baseUrl}: ${describe(thrown)}`;
    return new ForkdError("daemon_unreachable", reason, { cause: thrown });
  }
}

function usualMs(name: RouteName): number {
  return slowRoutes.has(name) ? timeoutSlowMs : timeoutDefaultMs;
}

/** A guest command with a time limit of its own must outlive no shorter limit of ours. */
function grantedMs(body: unknown): number | undefined {
  if (typeof body !== "object" || body === null || !("timeout_secs" in body)) return undefined;
  const { timeout_secs: secs } = body;
  return typeof secs === "number" && secs > 0 ? secs * 1000 + timeoutSlackMs : undefined;
}

/** fetch hides the reason (ECONNREFUSED and the like) in its error's cause. */
function describe(thrown: unknown): string {
  if (!(thrown instanceof Error)) return String(thrown);
  const { cause } = thrown;
  if (!(cause instanceof Error)) return thrown.message;
  const code = "code" in cause && typeof cause.code === "string" ? cause.code : "";
  return cause.message === "" ? code : cause.message;
}
