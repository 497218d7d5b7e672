import { Client, type ClientOptions } from "@forkd/sdk";

export interface Sent {
  readonly method: string;
  readonly url: string;
  readonly body: unknown;
  readonly init: RequestInit;
}

export interface FakeFetch {
  readonly fetch: typeof fetch;
  /** Every request, in order. */
  readonly sent: Sent[];
}

/** A fetch that gives each answer in turn, the last one for ever, and keeps what it was asked. */
export function fakeFetch(...answers: readonly (() => Response | Promise<Response>)[]): FakeFetch {
  const sent: Sent[] = [];
  const fetch = async (url: unknown, init: RequestInit = {}): Promise<Response> => {
    init.signal?.throwIfAborted();
    const answer = answers[Math.min(sent.length, answers.length - 1)];
    const body = typeof init.body === "string" ? JSON.parse(init.body) : undefined;
    sent.push({ method: init.method ?? "GET", url: String(url), body, init });
    if (answer === undefined) throw new TypeError("fake fetch has no answer");
    return await answer();
  };
  return { fetch, sent };
}

export function fakeClient(
  answers: readonly (() => Response | Promise<Response>)[],
  options: ClientOptions = {},
): { client: Client; sent: Sent[] } {
  const { fetch, sent } = fakeFetch(...answers);
  return { client: new Client({ url: "http://daemon:1/", token: "t", fetch, ...options }), sent };
}

export const json = (status: number, body: unknown, headers: Record<string, string> = {}) =>
  Response.json(body, { status, headers });

export const empty = (): Response => new Response(null, { status: 204 });

/** What fetch throws when nobody listens. */
export function refuse(): never {
  throw new TypeError("fetch failed", { cause: new Error("connect ECONNREFUSED 1.2.3.4:5") });
}

export const busy = (retryAfterSecs: number): Response =>
  json(
    503,
    { error: "too much at once", code: "busy", hint: "wait" },
    { "retry-after": String(retryAfterSecs) },
  );

export const notFound = (code: "sandbox_not_found" | "snapshot_not_found"): Response =>
  json(404, { error: "not found", code, hint: "list them" });
