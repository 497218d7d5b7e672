import { Agent, type IncomingMessage, request } from "node:http";
import { ForkdError } from "@forkd/api";
import { isErrno } from "../../lib/atomic.ts";
import { sleep } from "../../lib/deadline.ts";
import {
  type EndpointName,
  endpoints,
  errorReplySchema,
  pathOf,
  type Reply,
  type RequestBody,
} from "./contract.ts";

/**
 * A socket's name appears a moment before connections are taken, which the kernel announces to
 * nobody: the first connection is tried again, after 0, 1, 2, 4, ... ms.
 */
const refusalsMax = 9;
/** What Firecracker says of itself is short; more is not Firecracker. */
const replyBytesMax = 256 * 1024;
/** From an error's text into a message. */
const faultCharsMax = 2000;

/** Firecracker's own words about a request; it may end after them, which says less. */
export class FirecrackerRefusal extends ForkdError {}

export interface CallOptions {
  readonly timeoutMs?: number;
}

interface How {
  readonly timeoutMs: number;
  readonly what: string;
}

interface Answer {
  readonly status: number;
  readonly text: string;
}

/** Firecracker's API on its Unix socket: one kept connection, as it handles one request at a time. */
export class FirecrackerApi {
  readonly #socketPath: string;
  readonly #timeoutMs: number;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 1 });
  #hasAnswered = false;

  /** `socketPath` is absolute; nothing is connected before the first call. */
  constructor(socketPath: string, timeoutMs: number) {
    this.#socketPath = socketPath;
    this.#timeoutMs = timeoutMs;
  }

  /**
   * Makes one request and reads its whole answer. Throws engine_failed with Firecracker's own
   * words, deadline_exceeded; after a deadline Firecracker may still do what it was asked.
   */
  async call<N extends EndpointName>(
    name: N,
    body: RequestBody<N>,
    { timeoutMs = this.#timeoutMs }: CallOptions = {},
  ): Promise<Reply<N>> {
    const what = `${endpoints[name].method} ${endpoints[name].path}`;
    const { status, text } = await this.#insist(name, body, { timeoutMs, what });
    this.#hasAnswered = true;
    if (status >= 300) throw refused(what, status, text);
    const parsed = endpoints[name].reply.safeParse(parseJson(text));
    if (!parsed.success) {
      throw new ForkdError("engine_failed", `Firecracker's answer to ${what} is not what it is`);
    }
    // The endpoint's own schema has just parsed it; the union over all names hides that.
    return parsed.data as Reply<N>;
  }

  /** Drops the connection; calls in flight fail. */
  close(): void {
    this.#agent.destroy();
  }

  async #insist(name: EndpointName, body: unknown, how: How): Promise<Answer> {
    for (let attempt = 0; ; attempt += 1) {
      try {
        return await this.#exchange(name, body, how);
      } catch (error) {
        const refused = error instanceof ForkdError && isErrno(error.cause, "ECONNREFUSED");
        if (!refused || this.#hasAnswered || attempt === refusalsMax) throw error;
      }
      await sleep(attempt === 0 ? 0 : 2 ** (attempt - 1));
    }
  }

  #exchange(name: EndpointName, body: unknown, { timeoutMs, what }: How): Promise<Answer> {
    const payload = body === null ? undefined : Buffer.from(JSON.stringify(body));
    return new Promise((resolve, reject) => {
      const sent = request({
        socketPath: this.#socketPath,
        agent: this.#agent,
        method: endpoints[name].method,
        path: pathOf(name, body),
        headers: {
          accept: "application/json",
          ...(payload !== undefined && {
            "content-type": "application/json",
            "content-length": payload.length,
          }),
        },
      });
      const fail = (error: ForkdError): void => {
        clearTimeout(timer);
        reject(error);
        sent.destroy();
      };
      const timer = setTimeout(() => {
        const message = `Firecracker did not answer ${what} in ${timeoutMs} ms`;
        fail(new ForkdError("deadline_exceeded", message));
      }, timeoutMs);
      sent.on("error", (error) => fail(broke(what, error)));
      sent.on("response", (response) => {
        collect(response).then(
          (text) => {
            clearTimeout(timer);
            resolve({ status: response.statusCode ?? 0, text });
          },
          (error: unknown) => fail(broke(what, error)),
        );
      });
      sent.end(payload);
    });
  }
}

/** The whole text of an answer. Throws when it is over the bound or cut off. */
function collect(response: IncomingMessage): Promise<string> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    response.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
      chunks.push(chunk);
      if (bytes > replyBytesMax) reject(new Error(`the answer is over ${replyBytesMax} bytes`));
    });
    response.on("end", () => resolve(Buffer.concat(chunks).toString("utf8")));
    response.on("error", reject);
    response.on("aborted", () => reject(new Error("the answer was cut off")));
  });
}

/** Null for an empty answer, undefined for one that is no JSON. */
function parseJson(text: string): unknown {
  if (text.trim() === "") return null;
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function refused(what: string, status: number, text: string): ForkdError {
  const parsed = errorReplySchema.safeParse(parseJson(text));
  const words = parsed.success ? parsed.data.fault_message : text.trim();
  const message = `Firecracker refused ${what} (${status}): ${words.slice(0, faultCharsMax)}`;
  const code = /No space left on device|os error 28\b/.test(words) ? "disk_full" : "engine_failed";
  return new FirecrackerRefusal(code, message);
}

function broke(what: string, cause: unknown): ForkdError {
  if (cause instanceof ForkdError) return cause;
  const why = cause instanceof Error ? cause.message : String(cause);
  const message = `Firecracker's API broke at ${what}: ${why}`;
  return new ForkdError("engine_failed", message, { cause });
}
