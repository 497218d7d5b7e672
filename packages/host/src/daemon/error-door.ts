import type { Socket } from "node:net";
import { type ErrorCode, errorTable, ForkdError, toForkdError } from "@forkd/api";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { Logger } from "../lib/log.ts";
import type { Connections } from "./connections.ts";

const frameworkCodes: Readonly<Record<string, ErrorCode>> = {
  FST_ERR_CTP_BODY_TOO_LARGE: "payload_too_large",
  FST_ERR_CTP_INVALID_MEDIA_TYPE: "unsupported_media_type",
};

interface FrameworkError {
  readonly code: string;
  readonly statusCode: number;
  readonly message: string;
}

function isFrameworkError(thrown: unknown): thrown is FrameworkError {
  if (!(thrown instanceof Error) || !("statusCode" in thrown)) return false;
  return typeof thrown.statusCode === "number" && thrown.statusCode < 500;
}

/** Fastify's own refusals in our words; undefined for everything that is not the client's fault. */
function fromFramework(thrown: unknown): ForkdError | undefined {
  if (!isFrameworkError(thrown)) return undefined;
  return new ForkdError(frameworkCodes[thrown.code] ?? "bad_request", thrown.message, {
    cause: thrown,
  });
}

/** What a client may read: an unforeseen failure's own words could tell of the host's insides. */
function toPublicError(thrown: unknown, requestId: string): ForkdError {
  const error = fromFramework(thrown) ?? toForkdError(thrown);
  if (error === thrown || error.code !== "internal") return error;
  return new ForkdError("internal", `internal error; the daemon's log has it under ${requestId}`, {
    cause: thrown,
  });
}

function sendError(reply: FastifyReply, error: ForkdError): FastifyReply {
  if (error.retryAfterSecs !== null) reply.header("retry-after", error.retryAfterSecs);
  return reply.status(error.status).type("application/json; charset=utf-8").send(error.toProblem());
}

/** The one place where a failure becomes an answer and a line in the log. */
export function installErrorDoor(app: FastifyInstance, log: Logger): void {
  app.setErrorHandler((thrown: unknown, request: FastifyRequest, reply: FastifyReply) => {
    const error = toPublicError(thrown, request.id);
    request.outcome = error.code;
    if (error.status >= 500) {
      log.error(error.message, { request_id: request.id, code: error.code, cause: thrown });
    }
    return sendError(reply, error);
  });
}

/** Sends bytes on a socket whose request could not be parsed, so that there is no reply object. */
export function unparsedAnswerer(connections: Connections) {
  return ({ code }: NodeJS.ErrnoException, socket: Socket): void => {
    const due = connections.dueForUnparsed(socket, code);
    if (due === "nothing") return;
    if (due === "end" || code === "ECONNRESET" || !socket.writable) socket.destroy();
    else refuseOnSocket(socket, unparsedError(code));
  };
}

/** Answers CONNECT, for which there is no reply object; Node would hang up without a word. */
export function refuseTunnels(app: FastifyInstance): void {
  app.server.on("connect", (_request, socket: Socket) => {
    socket.on("error", () => undefined);
    refuseOnSocket(socket, new ForkdError("method_not_allowed", "the daemon is no proxy"));
    // Nothing watches it any more, and its client may keep its own side open.
    socket.destroySoon();
  });
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
