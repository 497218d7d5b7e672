import { once } from "node:events";
import {
  type ClientRequest,
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  request,
  type ServerResponse,
} from "node:http";
import { connect } from "node:net";
import type { SuiteContext, TestContext } from "node:test";

/** What goes wrong with one request. Bytes are counted from 0 in the body that is passed on. */
export interface Fault {
  /** It is answered with this, and goes nowhere. */
  readonly status?: number;
  /** Instead of those of the answer; an empty text takes one away. */
  readonly headers?: Readonly<Record<string, string>>;
  /** The answer's body ends after so many bytes, and the connection with it. */
  readonly cutAfter?: number;
  /** Nothing comes after so many bytes, and the connection stays. */
  readonly stallAfter?: number;
  /** One bit of this byte of the answer's body is another. */
  readonly flipAt?: number;
  /** The answer has this length, and says so. */
  readonly truncateTo?: number;
  readonly uploadCutAfter?: number;
  /** The request goes to its server, and the connection ends when it was answered. */
  readonly loseAnswer?: boolean;
}

export interface Seen {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
}

/** Where the requests go: a Unix socket, or a port of loopback. */
export type Upstream = { readonly socketPath: string } | { readonly port: number };

/** What node:test gives to beforeEach: of a suite, or of the test that is to begin. */
export type HookContext = TestContext | SuiteContext;

/** Stands between a client and a real server, and does what went wrong in real networks. */
export class FaultProxy implements AsyncDisposable {
  readonly seen: Seen[] = [];
  readonly #server;
  readonly #upstream: Upstream;
  readonly #faults: { readonly when: (seen: Seen) => boolean; readonly fault: Fault }[] = [];

  private constructor(upstream: Upstream) {
    this.#upstream = upstream;
    this.#server = createServer((incoming, outgoing) => {
      incoming.on("error", () => undefined);
      outgoing.on("error", () => undefined);
      void this.#serve(incoming, outgoing);
    });
  }

  /** One that ends with a test, from a hook of it. */
  static async startFor(context: HookContext, upstream: Upstream): Promise<FaultProxy> {
    const proxy = await FaultProxy.start(upstream);
    if (!("after" in context)) throw new Error("it is no hook of a test");
    context.after(() => proxy[Symbol.asyncDispose]());
    return proxy;
  }

  static async start(upstream: Upstream): Promise<FaultProxy> {
    const proxy = new FaultProxy(upstream);
    proxy.#server.listen(0, "127.0.0.1");
    await once(proxy.#server, "listening");
    return proxy;
  }

  get origin(): string {
    const address = this.#server.address();
    if (address === null || typeof address === "string") throw new Error("it has no port");
    return `http://127.0.0.1:${address.port}`;
  }

  /** The next request of this kind, and each further call one more. */
  failNext(fault: Fault, when: (seen: Seen) => boolean = () => true): void {
    this.#faults.push({ fault, when });
  }

  forgetFaults(): void {
    this.#faults.length = 0;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    this.#server.closeAllConnections();
  }

  #take(seen: Seen): Fault {
    const place = this.#faults.findIndex(({ when }) => when(seen));
    return place === -1 ? {} : (this.#faults.splice(place, 1)[0]?.fault ?? {});
  }

  async #serve(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const { method = "GET", url = "/", headers } = incoming;
    const seen = { method, url, headers };
    this.seen.push(seen);
    const fault = this.#take(seen);
    if (fault.status !== undefined) {
      const body = "<Error><Code>Injected</Code></Error>";
      outgoing.writeHead(fault.status, fault.headers).end(method === "HEAD" ? "" : body);
      return;
    }
    // It has been answered here already.
    const { expect: _, ...passed } = headers;
    const onward = request({ ...this.#upstream, method, path: url, headers: passed });
    // Node takes it from the request when that has been read.
    const { socket } = incoming;
    onward.on("error", () => socket.destroy());
    socket.once("close", () => onward.destroy());
    try {
      await passOn({ incoming, onward, outgoing }, fault);
    } catch {
      socket.destroy();
    }
  }
}

interface Streams {
  readonly incoming: IncomingMessage;
  readonly onward: ClientRequest;
  readonly outgoing: ServerResponse;
}

async function passOn({ incoming, onward, outgoing }: Streams, fault: Fault): Promise<void> {
  const answered = once(onward, "response");
  answered.catch(() => undefined);
  await pump(incoming, onward, { cutAfter: fault.uploadCutAfter });
  onward.end();
  const [answer] = await answered;
  if (fault.loseAnswer === true) {
    for await (const _ of answer);
    throw new Error("the answer is lost");
  }
  outgoing.writeHead(answer.statusCode ?? 0, headersOf(answer, fault));
  const { cutAfter, flipAt, truncateTo, stallAfter } = fault;
  await pump(answer, outgoing, { cutAfter, flipAt, truncateTo: truncateTo ?? stallAfter });
  if (stallAfter === undefined) outgoing.end();
}

function headersOf({ headers }: IncomingMessage, { headers: other, truncateTo }: Fault) {
  const all: IncomingHttpHeaders = { ...headers, ...other };
  if (truncateTo !== undefined) all["content-length"] = String(truncateTo);
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== ""));
}

interface Damage {
  readonly cutAfter: number | undefined;
  readonly flipAt?: number | undefined;
  readonly truncateTo?: number | undefined;
}

async function pump(
  from: IncomingMessage,
  to: NodeJS.WritableStream,
  { cutAfter, flipAt, truncateTo }: Damage,
): Promise<void> {
  const end = cutAfter ?? truncateTo ?? Number.POSITIVE_INFINITY;
  let done = 0;
  for await (const chunk of from) {
    const bytes = Buffer.from(chunk);
    const flip = (flipAt ?? -1) - done;
    if (flip >= 0 && flip < bytes.length) bytes.writeUInt8(bytes.readUInt8(flip) ^ 1, flip);
    const kept = bytes.subarray(0, Math.max(0, end - done));
    done += bytes.length;
    // It waits for each piece: what was written must leave before the connection does.
    if (kept.length > 0) await new Promise<void>((resolve) => to.write(kept, () => resolve()));
    if (done < end) continue;
    if (cutAfter === undefined) return;
    throw new Error("cut");
  }
}

/** Throws unless something accepts connections there. */
export async function socketAnswers(path: string): Promise<void> {
  const socket = connect(path);
  try {
    await once(socket, "connect");
  } finally {
    socket.destroy();
  }
}
