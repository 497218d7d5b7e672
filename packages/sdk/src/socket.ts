import {
  execSubprotocol,
  ForkdError,
  type Route,
  type RouteParams,
  routePath,
  routes,
  tokenSubprotocolPrefix,
} from "@forkd/api";
import { problemError, readText, unreachable } from "./answer.ts";
import { type CallControl, Deadline } from "./deadline.ts";
import { deferred } from "./deferred.ts";
import type { ClientSettings } from "./settings.ts";
import type { Socket, SocketMaker } from "./socket-maker.ts";

const openTimeoutMs = 30_000;

export interface SocketOptions extends CallControl {
  readonly params: RouteParams<"streamExec">;
}

/**
 * Opens the WebSocket of exec streams. The token goes in a subprotocol, because no platform lets a
 * WebSocket set headers everywhere, and an address is written to logs. Throws what the daemon
 * refuses, daemon_unreachable, deadline_exceeded, and the signal's reason.
 */
export async function openExecSocket(
  settings: ClientSettings,
  options: SocketOptions,
): Promise<Socket> {
  const route: Route = routes.streamExec;
  const address = `${settings.baseUrl}${routePath(route, options.params)}`;
  const deadline = new Deadline("streamExec", options.timeoutMs ?? openTimeoutMs, options.signal);
  const make = settings.webSocket ?? (await platformSocket());
  const protocols = [execSubprotocol, ...carrier(settings.token)];
  const socket = make(address.replace(/^http/, "ws"), protocols);
  socket.binaryType = "arraybuffer";
  try {
    await opened(socket, deadline.signal);
    return socket;
  } catch (thrown) {
    socket.close();
    const ending = deadline.ending(thrown);
    throw ending === undefined ? await refusal(settings, address) : ending.reason;
  }
}

function carrier(token: string | null): string[] {
  if (token === null) return [];
  const base64 = btoa(String.fromCharCode(...new TextEncoder().encode(token)));
  const base64url = base64.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  return [`${tokenSubprotocolPrefix}${base64url}`];
}

/** The platform's own; Node 20 has none. */
async function platformSocket(): Promise<SocketMaker> {
  if (typeof WebSocket === "function") return (url, protocols) => new WebSocket(url, protocols);
  const { WebSocket: Library } = await import("ws");
  // Its events are those of the platform's, but its types name classes of its own.
  return (url, protocols) => new Library(url, protocols) as unknown as Socket;
}

async function opened(socket: Socket, signal: AbortSignal): Promise<void> {
  const { promise, resolve, reject } = deferred<void>();
  const onAbort = (): void => reject(signal.reason);
  socket.addEventListener("open", () => resolve());
  socket.addEventListener("error", () => reject(new Error("the WebSocket was refused")));
  socket.addEventListener("close", () => reject(new Error("the WebSocket was refused")));
  signal.addEventListener("abort", onAbort, { once: true });
  if (signal.aborted) onAbort();
  await promise.finally(() => signal.removeEventListener("abort", onAbort));
}

/** A WebSocket is not told why it was refused: the same request without an upgrade is. */
async function refusal(settings: ClientSettings, address: string): Promise<ForkdError> {
  const headers = settings.token === null ? {} : { authorization: `Bearer ${settings.token}` };
  const request: RequestInit = { headers, redirect: "error" };
  try {
    const signal = AbortSignal.timeout(openTimeoutMs);
    const response = await settings.fetch(address, { ...request, signal });
    const { ok, status } = response;
    const answer = { ok, status, headers: response.headers, text: await readText(response) };
    const problem = problemError(answer, address);
    if (problem.code !== "upgrade_required") return problem;
    return new ForkdError("daemon_unreachable", "the WebSocket to the daemon broke", {
      hint: "check that what lies between, for example a proxy, lets WebSockets through",
    });
  } catch (thrown) {
    return unreachable(settings.baseUrl, thrown);
  }
}
