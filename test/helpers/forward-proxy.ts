import { once } from "node:events";
import { createServer, request } from "node:http";
import type { Duplex } from "node:stream";

/** A proxy as companies have one (RFC 9110, 7.6 and 9.3.6): it tells what it was asked for. */
export class ForwardProxy implements AsyncDisposable {
  /** Addresses of requests, and `CONNECT HOST:PORT`. */
  readonly seen: string[] = [];
  /** Called with what it was asked to connect to, which it refuses. */
  onConnect: (to: string) => void = () => undefined;
  readonly #server = createServer((incoming, outgoing) => {
    const { url = "", method, headers } = incoming;
    this.seen.push(url);
    const passed = request(url, { method, headers, agent: false }, (answer) => {
      outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(outgoing);
    });
    passed.on("error", () => outgoing.destroy());
    incoming.pipe(passed);
  });

  static async start(): Promise<ForwardProxy> {
    const proxy = new ForwardProxy();
    proxy.#server.on("connect", ({ url = "" }, socket: Duplex) => {
      proxy.seen.push(`CONNECT ${url}`);
      socket.on("error", () => undefined);
      socket.end("HTTP/1.1 403 Forbidden\r\n\r\n");
      proxy.onConnect(url);
    });
    proxy.#server.listen(0, "127.0.0.1");
    await once(proxy.#server, "listening");
    return proxy;
  }

  /** `name`: of this host. */
  origin(name: "127.0.0.1" | "localhost" = "127.0.0.1"): string {
    const address = this.#server.address();
    if (address === null || typeof address === "string") throw new Error("it does not listen");
    return `http://${name}:${address.port}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, "close");
  }
}
