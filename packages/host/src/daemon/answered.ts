import { errorTable, ForkdError } from "@forkd/api";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";

/** Requests that became WebSockets. */
const upgraded = new WeakSet<FastifyReply["raw"]>();

/** The request is answered by its upgrade, when its connection has ended. */
export function markUpgraded({ raw }: FastifyReply): void {
  raw.statusCode = 101;
  upgraded.add(raw);
}

/** One request, once nothing more will be sent for it. */
export interface Answered {
  readonly request: FastifyRequest;
  /** The answer's, or that of `client_gone` when the client did not wait for it. */
  readonly status: number;
  readonly elapsedMs: number;
}

/**
 * Calls `listener` once for every request, also for one whose client went away: that is when the
 * framework's own hook stays silent. Install it before what may refuse requests.
 */
export function onAnswered(app: FastifyInstance, listener: (answered: Answered) => void): void {
  app.addHook("onRequest", async (request, reply) => {
    // The framework's own clock runs only when its logger does.
    const started = performance.now();
    onClosed(reply, (isSent) => {
      const status = isSent ? reply.statusCode : errorTable.client_gone.status;
      listener({ request, status, elapsedMs: performance.now() - started });
    });
  });
}

/** Aborts with client_gone when the client closes its connection before the whole answer is sent. */
export function clientSignal(reply: FastifyReply): AbortSignal {
  const gone = new AbortController();
  onClosed(reply, (isSent) => {
    // A HEAD is over with its head: what a stream would go on to tell is for nobody.
    const isOver = !isSent || reply.request.method === "HEAD";
    if (isOver) gone.abort(new ForkdError("client_gone", "the client closed its connection"));
  });
  return gone.signal;
}

type ClosedListener = (isSent: boolean) => void;

/** Who waits for the end of each answer: one listener on it for all of them. */
const waiting = new WeakMap<FastifyReply["raw"], ClosedListener[]>();

function onClosed({ raw }: FastifyReply, listener: ClosedListener): void {
  // It may have gone between its last byte and now.
  if (raw.closed) {
    listener(raw.writableFinished || upgraded.has(raw));
    return;
  }
  const others = waiting.get(raw);
  if (others !== undefined) {
    others.push(listener);
    return;
  }
  const listeners = [listener];
  waiting.set(raw, listeners);
  let isSent = raw.writableFinished;
  raw.once("finish", () => {
    isSent = true;
  });
  raw.once("close", () => {
    for (const each of listeners) each(isSent || upgraded.has(raw));
  });
}
