import { type ClientRequest, request as httpRequest, type IncomingMessage } from "node:http";
import { request as httpsRequest } from "node:https";
import { ForkdError } from "@forkd/api";
import { connectFailure, failureOf, unreachable } from "./http-failure.ts";
import { nameOf } from "./names.ts";
import { oneCallAgent } from "./proxy.ts";
import type { Itinerary } from "./reach.ts";

/** A connection on which nothing moves for this long is given up: connecting, sending, waiting. */
const idleMaxMs = 60_000;
const redirectsMax = 5;
/** How long a server may take to say that it wants a body, before it gets it unasked. */
const continueWaitMs = 1_000;

export interface HttpCall {
  readonly method: "GET" | "HEAD" | "PUT";
  readonly url: URL;
  readonly itinerary: Itinerary;
  readonly headers: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
  /** Writes the body and ends the request. It may be called again after a redirect. */
  readonly send?: (request: ClientRequest) => Promise<void>;
  /** Statuses besides 2xx that the caller understands. */
  readonly accept?: readonly number[];
}

/**
 * Does one request and follows redirects within the itinerary. The body of the answer is the
 * caller's to read or to destroy.
 *
 * Throws remote_not_found, remote_refused, remote_unreachable with the server's Retry-After, the
 * signal's reason.
 */
export async function httpCall(call: HttpCall): Promise<IncomingMessage> {
  let url = call.url;
  for (let redirects = 0; ; redirects += 1) {
    const answer = await exchange({ ...call, url });
    const status = answer.statusCode ?? 0;
    if ((status >= 200 && status < 300) || call.accept?.includes(status)) return answer;
    const next = redirectOf(call, answer);
    if (next === undefined) throw await failureOf(answer, nameOf(call.url));
    answer.destroy();
    if (redirects === redirectsMax) throw tooManyRedirects(call.url);
    url = new URL(next, url);
    call.itinerary.requireHop(url);
  }
}

function tooManyRedirects(url: URL): ForkdError {
  const message = `${nameOf(url)} redirects more than ${redirectsMax} times`;
  return new ForkdError("remote_refused", message);
}

/** A PUT goes again only where the server says that the method stays (RFC 9110, 15.4). */
function redirectOf({ method, url }: HttpCall, answer: IncomingMessage): string | undefined {
  const status = answer.statusCode ?? 0;
  const kept = status === 307 || status === 308;
  const changed = method !== "PUT" && [301, 302, 303].includes(status);
  const { location } = answer.headers;
  return (kept || changed) && URL.canParse(location ?? "", url.href) ? location : undefined;
}

async function exchange(call: HttpCall): Promise<IncomingMessage> {
  const { url, itinerary, signal, method, headers } = call;
  signal.throwIfAborted();
  const open = url.protocol === "https:" ? httpsRequest : httpRequest;
  const request = open(url, {
    method,
    headers: { ...headers, ...(call.send && { expect: "100-continue" }) },
    lookup: itinerary.lookupFor(url),
    agent: oneCallAgent(url, itinerary.env),
    signal,
    timeout: idleMaxMs,
  });
  request.once("timeout", () => {
    request.destroy(unreachable(`${nameOf(url)} was silent for ${idleMaxMs / 1000} s`));
  });
  try {
    return await answerTo(request, call);
  } catch (error) {
    request.destroy();
    signal.throwIfAborted();
    if (error instanceof ForkdError) throw error;
    throw connectFailure(nameOf(url), error);
  }
}

async function answerTo(request: ClientRequest, call: HttpCall): Promise<IncomingMessage> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  request.once("response", resolve);
  // It stays: what breaks after the answer has begun is told by the answer's own body.
  request.on("error", reject);
  if (call.send === undefined) request.end();
  else await sendBody(request, { send: call.send, answered: promise });
  return promise;
}

interface Sending {
  readonly send: (request: ClientRequest) => Promise<void>;
  readonly answered: Promise<IncomingMessage>;
}

/** Sends the body unless the server answers before: a refusal must not cost the upload. */
async function sendBody(request: ClientRequest, { send, answered }: Sending): Promise<void> {
  const { promise: go, resolve } = Promise.withResolvers<"go">();
  request.once("continue", () => resolve("go"));
  request.flushHeaders();
  const timer = setTimeout(() => resolve("go"), continueWaitMs);
  try {
    if ((await Promise.race([go, answered])) !== "go") return;
    const sending = send(request);
    sending.catch(() => undefined);
    // A server that has seen enough answers and closes, and the rest of the body has no reader.
    // When it breaks, the sender knows why better than the connection.
    await Promise.race([sending, answered.catch(() => sending)]);
  } finally {
    clearTimeout(timer);
  }
}
