import type { IncomingMessage } from "node:http";
import { ForkdError } from "@forkd/api";
import type { FastifyInstance } from "fastify";

/**
 * Headers of which a second one is refused. Node takes the first and a proxy may take the last, so
 * that one of them would guard another request than the one that is served.
 */
const singleHeaders: ReadonlySet<string> = new Set([
  ...["host", "authorization", "content-type", "content-encoding", "origin", "expect"],
]);

/**
 * Refuses what Node's strict parser lets through although its end, its coding or its meaning is
 * not the same for everybody who reads it (RFC 9112, sections 3.2 and 6; RFC 9110, section 10.1.1).
 * What came behind such a request on its connection is not read.
 */
export function installFramingGuard(app: FastifyInstance): void {
  // Without a listener Node answers by itself, in another shape and unaudited.
  app.server.on("checkExpectation", (request, response) => {
    app.server.emit("request", request, response);
  });
  app.addHook("onRequest", async ({ raw }, reply) => {
    const problem = findProblem(raw);
    if (problem === undefined) return;
    reply.header("connection", "close");
    throw problem;
  });
}

function findProblem(request: IncomingMessage): ForkdError | undefined {
  const { httpVersion, headers, rawHeaders } = request;
  const refuse = (why: string): ForkdError => new ForkdError("bad_request", why);
  if (httpVersion !== "1.1" && httpVersion !== "1.0") return refuse("the request is not HTTP/1.1");
  const twice = findRepeated(rawHeaders);
  if (twice !== undefined) return refuse(`the ${twice} header came more than once`);
  const transfer = headers["transfer-encoding"];
  if (transfer !== undefined && (httpVersion !== "1.1" || transfer.toLowerCase() !== "chunked")) {
    return refuse("the only transfer coding is chunked, in HTTP/1.1");
  }
  if (headers.expect !== undefined && headers.expect.toLowerCase() !== "100-continue") {
    return refuse("the only expectation is 100-continue");
  }
  const coding = headers["content-encoding"];
  if (coding === undefined || coding.toLowerCase() === "identity") return undefined;
  return new ForkdError("unsupported_media_type", "the body is compressed", {
    hint: "send the body as it is, without Content-Encoding",
  });
}

/** `rawHeaders` has names and values in turn. */
function findRepeated(rawHeaders: readonly string[]): string | undefined {
  const seen = new Set<string>();
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = (rawHeaders[at] ?? "").toLowerCase();
    if (!singleHeaders.has(name)) continue;
    if (seen.has(name)) return name;
    seen.add(name);
  }
  return undefined;
}
