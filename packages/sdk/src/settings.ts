import { ForkdError } from "@forkd/api";
import { retriesMaxDefault } from "./retry.ts";
import type { SocketMaker } from "./socket-maker.ts";

export interface ClientOptions {
  /** Where the daemon answers. Default: FORKD_URL, else http://127.0.0.1:8889. */
  readonly url?: string | undefined;
  /** Default: FORKD_TOKEN; without one no Authorization header is sent. */
  readonly token?: string | undefined;
  /** Deadline of calls that name none, milliseconds. Default: what the route usually needs. */
  readonly timeoutMs?: number | undefined;
  /** How often a call that may be repeated is sent again. Default: 2. */
  readonly retriesMax?: number | undefined;
  /** Stands in for the platform's fetch, for tests and for other transports. */
  readonly fetch?: typeof fetch | undefined;
  /** Makes the WebSockets of running commands in the platform's place. */
  readonly webSocket?: SocketMaker | undefined;
}

export interface ClientSettings {
  /** Without a slash at its end. */
  readonly baseUrl: string;
  readonly token: string | null;
  readonly timeoutMs: number | null;
  readonly retriesMax: number;
  readonly fetch: typeof fetch;
  readonly webSocket: SocketMaker | null;
}

const urlDefault = "http://127.0.0.1:8889";

/** Throws bad_request for an address that is not http or https. */
export function resolveSettings(options: ClientOptions): ClientSettings {
  const token = (options.token ?? environment("FORKD_TOKEN") ?? "").trim();
  return {
    baseUrl: parseBaseUrl(options.url ?? environment("FORKD_URL") ?? urlDefault),
    token: token === "" ? null : token,
    timeoutMs: options.timeoutMs ?? null,
    retriesMax: options.retriesMax ?? retriesMaxDefault,
    fetch: options.fetch ?? globalThis.fetch,
    webSocket: options.webSocket ?? null,
  };
}

function parseBaseUrl(text: string): string {
  // Node 20 has no URL.parse.
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url !== null && (url.protocol === "http:" || url.protocol === "https:")) {
    return url.href.replace(/\/+$/, "");
  }
  throw new ForkdError("bad_request", `${JSON.stringify(text)} is not an http or https address`, {
    hint: "set FORKD_URL to the daemon's address, for example http://127.0.0.1:8889",
  });
}

interface MaybeNode {
  readonly process?: { readonly env?: Readonly<Record<string, string | undefined>> };
}

/** A variable where there is an environment (Node, Bun, Deno); undefined in a browser. */
function environment(name: string): string | undefined {
  // The cast says what the types of Node hide: elsewhere there is no `process`.
  const value = (globalThis as MaybeNode).process?.env?.[name];
  return value === "" ? undefined : value;
}
