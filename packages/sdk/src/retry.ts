import type { Route } from "@forkd/api";
import { ForkdError } from "@forkd/api";
import type { Deadline } from "./deadline.ts";

/** How often a call is sent again unless its caller says otherwise. */
export const retriesMaxDefault = 2;
/** A daemon that wants to be left alone for longer is not waited for. */
const retryWaitMaxMs = 10_000;
/** Before the first repetition after a connection failed; each later one waits twice as long. */
const reconnectWaitMs = 100;
/** Share of a wait that is left to chance, so that refused clients do not come back together. */
const jitter = 0.25;

/**
 * Whether sending a request twice does the same as sending it once. A ping could be repeated too,
 * but it asks about now.
 */
function isRepeatable(route: Route): boolean {
  return route.method === "GET" || route.method === "DELETE";
}

/** Milliseconds before the next attempt; null when there should be none. `attempt` begins at 0. */
function waitBefore(error: unknown, attempt: number): number | null {
  if (!(error instanceof ForkdError)) return null;
  const least =
    error.code === "daemon_unreachable"
      ? reconnectWaitMs * 2 ** attempt
      : (error.retryAfterSecs ?? Number.POSITIVE_INFINITY) * 1000;
  return least > retryWaitMaxMs ? null : least * (1 + jitter * Math.random());
}

/** What a call may do again, and until when. */
export interface RetryPlan {
  readonly route: Route;
  readonly retriesMax: number;
  readonly deadline: Deadline;
}

/**
 * Runs `attempt` until it succeeds, fails for good, or has been repeated `retriesMax` times. A
 * wait that would pass the deadline is not begun: the failure is told instead.
 */
export async function withRetries<T>(
  { route, retriesMax, deadline }: RetryPlan,
  attempt: () => Promise<T>,
): Promise<T | undefined> {
  let wasCutOff = false;
  for (let count = 0; ; count += 1) {
    try {
      return await attempt();
    } catch (error) {
      if (wasCutOff && isGone(route, error)) return undefined;
      const waitMs = isRepeatable(route) && count < retriesMax ? waitBefore(error, count) : null;
      if (waitMs === null || waitMs >= deadline.leftMs) throw error;
      wasCutOff ||= error instanceof ForkdError && error.code === "daemon_unreachable";
      await deadline.sleep(waitMs);
    }
  }
}

/** A deletion whose answer was lost finds nothing when it is repeated: it was done. */
function isGone(route: Route, error: unknown): boolean {
  return route.method === "DELETE" && error instanceof ForkdError && error.status === 404;
}
