import type {
  CallName,
  Route,
  RouteParams,
  RouteQuery,
  RouteRequest,
  RouteResult,
  StreamName,
} from "@forkd/api";
import { callNames, ForkdError, routePath, routeQuery, routes } from "@forkd/api";
import { type Answer, problemError, readText, unreachable } from "./answer.ts";
import { type CallControl, callTimeoutMs, Deadline } from "./deadline.ts";
import { withRetries } from "./retry.ts";
import type { ClientOptions, ClientSettings } from "./settings.ts";
import { resolveSettings } from "./settings.ts";
import { openExecSocket, type SocketOptions } from "./socket.ts";
import type { Socket } from "./socket-maker.ts";

export type { CallControl } from "./deadline.ts";
export type { ClientOptions } from "./settings.ts";

type ParamsOption<N extends CallName> = keyof RouteParams<N> extends never
  ? { readonly params?: never }
  : { readonly params: RouteParams<N> };

type BodyOption<N extends CallName> =
  RouteRequest<N> extends undefined
    ? { readonly body?: never }
    : { readonly body: RouteRequest<N> };

type QueryOption<N extends CallName> = keyof RouteQuery<N> extends never
  ? { readonly query?: never }
  : { readonly query?: Partial<RouteQuery<N>> };

/** What one call takes: the path's parameters, query and body that the route table asks for. */
export type CallOptions<N extends CallName> = CallControl &
  ParamsOption<N> &
  QueryOption<N> &
  BodyOption<N>;

/** The options may be left out where nothing in them is required. */
type CallArguments<N extends CallName> =
  Record<never, never> extends CallOptions<N>
    ? [options?: CallOptions<N>]
    : [options: CallOptions<N>];

/** One method a route, named like it; WebSockets have handles of their own. */
export type RouteMethods = {
  readonly [N in CallName]: (...args: CallArguments<N>) => Promise<RouteResult<N>>;
};

/** One request of a row whose body or answer is a stream. */
export interface StreamOptions extends Pick<CallControl, "signal" | "timeoutMs"> {
  readonly params: Readonly<Record<string, string>>;
  readonly query?: Readonly<Record<string, unknown>>;
  readonly headers?: Readonly<Record<string, string>>;
  /** Bytes for a row that takes them. */
  readonly body?: RequestInit["body"] | undefined;
  /** A value for a row that takes JSON. */
  readonly json?: unknown;
}

/** An answer that has begun. */
export interface OpenStream {
  readonly response: Response;
  /** What the caller should throw for a failure that comes while the body is read. */
  readonly ending: (thrown: unknown) => unknown;
}

/** The part of any call that does not depend on its route's types. */
interface LooseCall extends CallControl {
  readonly params?: Readonly<Record<string, string>>;
  readonly query?: Readonly<Record<string, unknown>>;
  readonly body?: unknown;
}

class Caller {
  readonly #settings: ClientSettings;

  /** Throws bad_request for an address that is not http or https. */
  constructor(options: ClientOptions = {}) {
    this.#settings = resolveSettings(options);
    for (const name of callNames) {
      const value = (call: LooseCall = {}): Promise<unknown> => this.#send(name, call);
      Object.defineProperty(this, name, { value, enumerable: true });
    }
  }

  /**
   * Sends one request and checks its answer against the route table. Only what may be sent twice
   * (GET and DELETE) is sent again, after a failure that may pass. Throws ControllerError for what
   * the daemon refuses, daemon_unreachable when nobody answers, deadline_exceeded after the
   * deadline, and the signal's reason when the caller aborts.
   */
  async call<N extends CallName>(name: N, ...args: CallArguments<N>): Promise<RouteResult<N>> {
    const call: LooseCall = args[0] ?? {};
    const answer = await this.#send(name, call);
    // The schema that parsed the answer is the one that RouteResult is derived from.
    return answer as RouteResult<N>;
  }

  /** Opens the WebSocket of a sandbox's exec stream; Sandbox.spawn and attach speak on it. */
  openExecSocket(options: SocketOptions): Promise<Socket> {
    return openExecSocket(this.#settings, options);
  }

  /**
   * Sends one request of a row whose body or answer is a stream, once, and gives the answer as it
   * begins, its body unread. There is no deadline unless one is given; it ends the stream too.
   * Throws as {@link call}.
   */
  async open(name: StreamName, call: StreamOptions): Promise<OpenStream> {
    const route: Route = routes[name];
    const path = `${routePath(route, call.params)}${routeQuery(call.query ?? {})}`;
    const url = `${this.#settings.baseUrl}${path}`;
    const { timeoutMs } = call;
    const deadline = timeoutMs === undefined ? null : new Deadline(name, timeoutMs, call.signal);
    const signal = deadline === null ? call.signal : deadline.signal;
    const ending = (thrown: unknown): unknown => {
      if (call.signal?.aborted === true) return call.signal.reason;
      if (thrown instanceof ForkdError) return thrown;
      return deadline?.ending(thrown)?.reason ?? unreachable(this.#settings.baseUrl, thrown);
    };
    try {
      const request = this.#streamRequest(route, call);
      const response = await this.#settings.fetch(url, { ...request, ...(signal && { signal }) });
      if (response.ok) return { response, ending };
      const { status, headers } = response;
      throw problemError({ ok: false, status, headers, text: await readText(response) }, url);
    } catch (thrown) {
      throw ending(thrown);
    }
  }

  #streamRequest(route: Route, { body, json, headers }: StreamOptions): RequestInit {
    const { token } = this.#settings;
    const all: Record<string, string> = { ...headers };
    if (token !== null) all["authorization"] = `Bearer ${token}`;
    const request: RequestInit = { method: route.method, headers: all, redirect: "error" };
    if (json !== undefined) {
      all["content-type"] = "application/json";
      return { ...request, body: JSON.stringify(json) };
    }
    if (body === undefined) return request;
    all["content-type"] = "application/octet-stream";
    // A stream is sent while the answer is waited for; the types do not know the word for it yet.
    const options: object = { body, duplex: "half" };
    return { ...request, ...options };
  }

  async #send(name: CallName, call: LooseCall): Promise<unknown> {
    const { timeoutMs, retriesMax } = this.#settings;
    const route: Route = routes[name];
    const path = `${routePath(route, call.params ?? {})}${routeQuery(call.query ?? {})}`;
    const deadline = new Deadline(name, callTimeoutMs(name, call, timeoutMs), call.signal);
    const plan = { route, deadline, retriesMax: call.retriesMax ?? retriesMax };
    const request = { ...this.#request(route, call.body), signal: deadline.signal };
    try {
      return await withRetries(plan, () => this.#attempt(route, path, request));
    } catch (thrown) {
      const ending = thrown instanceof ForkdError ? undefined : deadline.ending(thrown);
      throw ending === undefined ? thrown : ending.reason;
    }
  }

  async #attempt(route: Route, path: string, request: RequestInit): Promise<unknown> {
    const url = `${this.#settings.baseUrl}${path}`;
    const answer = await this.#fetch(url, request);
    if (!answer.ok) throw problemError(answer, url);
    return parseAnswer(route, answer.text);
  }

  /** Throws daemon_unreachable when the connection fails before the answer is complete. */
  async #fetch(url: string, request: RequestInit): Promise<Answer> {
    try {
      const response = await this.#settings.fetch(url, request);
      const { ok, status, headers } = response;
      return { ok, status, headers, text: await readText(response) };
    } catch (thrown) {
      if (thrown instanceof ForkdError || request.signal?.aborted === true) throw thrown;
      throw unreachable(this.#settings.baseUrl, thrown);
    }
  }

  #request(route: Route, body: unknown): RequestInit {
    const headers: Record<string, string> = { accept: "application/json" };
    const { token } = this.#settings;
    if (token !== null) headers["authorization"] = `Bearer ${token}`;
    // A redirect could carry the token to another host.
    const request: RequestInit = { method: route.method, headers, redirect: "error" };
    if (route.request === null) return request;
    headers["content-type"] = "application/json";
    return { ...request, body: JSON.stringify(body) };
  }
}

function parseAnswer(route: Route, text: string): unknown {
  const { body } = route.success;
  if (body === null) return undefined;
  if (body === "text") return text;
  if (typeof body === "string") throw new TypeError(`${route.path} is a stream`);
  const parsed = body.safeParse(parseJson(text));
  if (parsed.success) return parsed.data;
  throw new ForkdError("internal", `${route.path} answered what its schema does not allow`, {
    hint: "check that the daemon and this client are of the same version",
    cause: parsed.error,
  });
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** A typed client of the forkd daemon: `call(name, options)`, or the method of that name. */
export type Client = Caller & RouteMethods;

/** See {@link Caller}; the cast adds the methods that its constructor makes from the table. */
export const Client = Caller as unknown as new (options?: ClientOptions) => Client;
