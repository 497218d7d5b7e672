import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import { errorTable, ForkdError } from "@forkd/api";
import type { FastifyInstance } from "fastify";
import type { Connections } from "./connections.ts";

/** What was refused before it was a request that the framework knows. */
export interface SocketRefusal {
  readonly error: ForkdError;
  /** As the client wrote them; null when that cannot be read. */
  readonly method: string | null;
  readonly target: string | null;
  readonly remote: string;
}

/**
 * Answers, on the socket itself, what gets no reply object: bytes that are no HTTP, and CONNECT.
 * The connection ends with it, so there is one at most for each. Whoever counts requests is told.
 */
export class SocketRefusals {
  readonly #connections: Connections;
  readonly #listeners: ((refusal: SocketRefusal) => void)[] = [];

  constructor(connections: Connections) {
    this.#connections = connections;
  }

  onRefused(listener: (refusal: SocketRefusal) => void): void {
    this.#listeners.push(listener);
  }

  /** For what Node's parser gave up. */
  readonly answerUnparsed = ({ code }: NodeJS.ErrnoException, socket: Socket): void => {
    const due = this.#connections.dueForUnparsed(socket, code);
    if (due === "nothing") return;
    if (due === "end" || code === "ECONNRESET" || !socket.writable) socket.destroy();
    // A request that is in flight is told of at its own end.
    else if (!this.#connections.isFree(socket)) refuseOnSocket(socket, unparsedError(code));
    else this.#refuse(socket, unparsedError(code));
  };

  /** Node alone would hang up on CONNECT without a word. */
  refuseTunnels(app: FastifyInstance): void {
    app.server.on("connect", (request: IncomingMessage, socket: Socket) => {
      socket.on("error", () => undefined);
      const error = new ForkdError("method_not_allowed", "the daemon is no proxy");
      this.#refuse(socket, error, request);
      // Nothing watches it any more, and its client may keep its own side open.
      socket.destroySoon();
    });
  }

  #refuse(socket: Socket, error: ForkdError, request?: IncomingMessage): void {
    const { method = null, url: target = null } = request ?? {};
    const remote = socket.remoteAddress ?? "";
    refuseOnSocket(socket, error);
    for (const listener of this.#listeners) listener({ error, method, target, remote });
  }
}

const statusWords: Partial<Record<number, string>> = {
  [errorTable.bad_request.status]: "Bad Request",
  [errorTable.method_not_allowed.status]: "Method Not Allowed",
  [errorTable.request_timeout.status]: "Request Timeout",
  [errorTable.headers_too_large.status]: "Request Header Fields Too Large",
};

function refuseOnSocket(socket: Socket, error: ForkdError): void {
  const body = JSON.stringify(error.toProblem());
  const { status, retryAfterSecs } = error;
  const head = [
    `HTTP/1.1 ${status} ${statusWords[status] ?? "Error"}`,
    "content-type: application/json; charset=utf-8",
    `content-length: ${Buffer.byteLength(body)}`,
    "connection: close",
    ...(retryAfterSecs === null ? [] : [`retry-after: ${retryAfterSecs}`]),
  ];
  socket.end(`${head.join("\r\n")}\r\n\r\n${body}`);
}

function unparsedError(code: string | undefined): ForkdError {
  switch (code) {
    case "ERR_HTTP_REQUEST_TIMEOUT":
      return new ForkdError("request_timeout", "the request did not arrive in time");
    case "HPE_HEADER_OVERFLOW":
      return new ForkdError("headers_too_large", "the request's headers are too large");
    default:
      return new ForkdError("bad_request", "the request is not HTTP/1.1");
  }
}
