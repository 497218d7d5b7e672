import { type ErrorCode, ForkdError, toForkdError } from "@forkd/api";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { Logger } from "../lib/log.ts";

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
