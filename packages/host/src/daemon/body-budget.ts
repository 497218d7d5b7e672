import { ForkdError, limits } from "@forkd/api";
import type { FastifyInstance, FastifyRequest } from "fastify";
import { onAnswered } from "./answered.ts";

declare module "fastify" {
  interface FastifyRequest {
    /** Bytes that the request's body takes of what all bodies may. */
    bodyBytes: number;
  }
}

/**
 * Bounds what the bodies of all requests in flight take together. A body counts from its
 * announcement to its answer, as long as what was parsed from it lives. Install it after what
 * refuses requests unread.
 */
export function installBodyBudget(app: FastifyInstance): void {
  let takenBytes = 0;
  app.decorateRequest("bodyBytes", 0);
  onAnswered(app, ({ request }) => {
    takenBytes -= request.bodyBytes;
  });
  app.addHook("onRequest", async (request) => {
    const bytes = announcedBytes(request);
    if (takenBytes + bytes > limits.requestBodiesBytesMax) {
      throw new ForkdError("too_many_requests", "the requests in flight hold too much already");
    }
    takenBytes += bytes;
    request.bodyBytes = bytes;
  });
}

/** What a body that is passed on as it comes has in memory at a time, on its way to a guest. */
const streamBytes = 512 * 1024;

/** A body of unknown length counts as the longest one; a body that is too long is refused unread. */
function announcedBytes({ headers, routeOptions }: FastifyRequest): number {
  const isChunked = headers["transfer-encoding"] !== undefined;
  const length = Number(headers["content-length"] ?? 0);
  if (routeOptions.config.isStream === true) return isChunked || length > 0 ? streamBytes : 0;
  if (isChunked) return limits.requestBodyBytesMax;
  return length <= limits.requestBodyBytesMax ? length : 0;
}
