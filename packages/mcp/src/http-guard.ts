import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { ForkdError } from "@forkd/api";
import { type Address, isLoopback } from "./address.ts";

/** Throws the reason for which a request is not let in. */
export type Guard = (request: IncomingMessage) => void;

/**
 * Who may call over HTTP: whoever has the token, and no web page. A page could reach a loopback
 * server through its visitor's browser, under a name that its owner points at this machine.
 */
export function createGuard(bind: Address, token: string | null): Guard {
  const matches = token === null ? () => true : tokenMatcher(token);
  return ({ headers }) => {
    const host = hostnameOf(`http://${headers.host ?? ""}`);
    if (isLoopback(bind.host) && (host === undefined || !isLoopback(host))) {
      throw new ForkdError("forbidden", "the Host header names another machine");
    }
    const origin = headers.origin === undefined ? host : hostnameOf(headers.origin);
    if (origin !== host) throw new ForkdError("forbidden", "pages of other sites may not call");
    const [, given = ""] = /^Bearer (.+)$/.exec(headers.authorization ?? "") ?? [];
    if (!matches(given.trim())) throw new ForkdError("unauthorized", "the token is not right");
  };
}

function hostnameOf(url: string): string | undefined {
  return URL.canParse(url) ? new URL(url).hostname : undefined;
}

/** A comparison whose time tells nothing of the secret: digests have one length. */
function tokenMatcher(token: string): (candidate: string) => boolean {
  const key = randomBytes(32);
  const digest = (text: string): Buffer => createHmac("sha256", key).update(text).digest();
  const expected = digest(token);
  return (candidate) => timingSafeEqual(digest(candidate), expected);
}
