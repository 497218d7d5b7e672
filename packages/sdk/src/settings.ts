import { ForkdError } from "@forkd/api";

export interface ClientOptions {
  /** Where the daemon answers. Default: FORKD_URL, else http://127.0.0.1:8889. */
  readonly url?: string;
  /** Default: FORKD_TOKEN; without one no Authorization header is sent. */
  readonly token?: string;
  /** Deadline of calls that name none, milliseconds. */
  readonly timeoutMs?: number;
  /** Stands in for the platform's fetch, for tests and for other transports. */
  readonly fetch?: typeof fetch;
}

export interface ClientSettings {
  /** Without a slash at its end. */
  readonly baseUrl: string;
  readonly token: string | null;
  readonly timeoutMs: number | null;
  readonly fetch: typeof fetch;
}

const urlDefault = "http://127.0.0.1:8889";

/** Throws bad_request for an address that is not http or https. */
export function resolveSettings(options: ClientOptions): ClientSettings {
  const token = (options.token ?? environment("FORKD_TOKEN") ?? "").trim();
  return {
    baseUrl: parseBaseUrl(options.url ?? environment("FORKD_URL") ?? urlDefault),
    token: token === "" ? null : token,
    timeoutMs: options.timeoutMs ?? null,
    fetch: options.fetch ?? globalThis.fetch,
  };
}

function parseBaseUrl(text: string): string {
  const url = URL.parse(text);
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
