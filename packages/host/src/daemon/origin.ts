import type { IncomingHttpHeaders } from "node:http";
import { ForkdError } from "@forkd/api";
import type { FastifyInstance } from "fastify";
import { isLoopback } from "./bind.ts";

const hostPattern = /^[A-Za-z0-9.:[\]_-]{1,255}$/;

/**
 * Refuses what a web page could make a browser send: a request under a foreign name that its owner
 * pointed at this machine (DNS rebinding), and a request from another site's page.
 */
export function installOriginGuard(app: FastifyInstance, bindHost: string): void {
  app.addHook("onRequest", async (request) => {
    const { headers, raw } = request;
    if (headers.host === undefined && raw.httpVersion === "1.1") {
      throw new ForkdError("bad_request", "the Host header is missing");
    }
    checkHost(headers, bindHost);
    checkOrigin(headers);
  });
}

function checkHost({ host }: IncomingHttpHeaders, bindHost: string): void {
  if (host === undefined || !isLoopback(bindHost)) return;
  const name = hostPattern.test(host) ? URL.parse(`http://${host}`)?.hostname : undefined;
  const bare = name?.replace(/^\[|\]$/g, "");
  if (bare !== undefined && (isLoopback(bare) || bare === bindHost.toLowerCase())) return;
  throw new ForkdError("forbidden", `the Host header names ${JSON.stringify(host.slice(0, 80))}`, {
    hint: "call the daemon by 127.0.0.1 or localhost",
  });
}

function checkOrigin({ origin, host }: IncomingHttpHeaders): void {
  if (origin === undefined) return;
  if (host !== undefined && URL.parse(origin)?.host === URL.parse(`http://${host}`)?.host) return;
  throw new ForkdError("forbidden", `pages of ${JSON.stringify(origin.slice(0, 80))} may not call`);
}
