import { ForkdError } from "@forkd/api";
import type { FastifyInstance } from "fastify";
import { sleep } from "../lib/deadline.ts";
import { isOpenPath } from "./auth.ts";

/** For a request that came while sandboxes are taken over; well below what clients wait for. */
const readyWaitMaxMs = 10_000;

/**
 * Has requests wait until the daemon knows its sandboxes, and answers busy, with Retry-After, to
 * those that would wait too long. What tells only that the daemon lives is answered at once.
 */
export function installReadiness(
  app: FastifyInstance,
  ready: Promise<void>,
  waitMaxMs = readyWaitMaxMs,
): void {
  let isReady = false;
  const over = ready.then(
    () => {
      isReady = true;
    },
    // Whoever serves ends then; who waits is told so.
    () => undefined,
  );
  app.addHook("onRequest", async (request) => {
    if (isReady || isOpenPath(request)) return;
    const late = new AbortController();
    await Promise.race([over, sleep(waitMaxMs, late.signal).catch(() => undefined)]);
    late.abort();
    if (!isReady) throw new ForkdError("busy", "the daemon still takes over what runs here");
  });
}
