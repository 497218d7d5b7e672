import type { IncomingMessage } from "node:http";
import { ForkdError } from "@forkd/api";
import { retryLater } from "./retry.ts";

/** Enough for the error documents of stores; what is more is not read. */
const bodyBytesMax = 4096;
const saidCharsMax = 160;
const bodyMaxMs = 5_000;

/** Answers after which the same request may do better (RFC 9110, 15.5 and 15.6; RFC 6585). */
const passing: ReadonlySet<number> = new Set([408, 425, 429, 500, 502, 503, 504, 509, 529]);

/** remote_unreachable without a time to come again. */
export function unreachable(message: string, cause?: unknown): ForkdError {
  return new ForkdError("remote_unreachable", message, { cause });
}

/** Node's and OpenSSL's names for a certificate that does not prove whose the server is. */
const unproven = /CERT|UNABLE_TO_VERIFY_LEAF_SIGNATURE/;

/** What it means that there was no answer: most reasons pass, some do not. */
export function connectFailure(name: string, error: unknown): ForkdError {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  const message = `${name} cannot be reached: ${error instanceof Error ? error.message : error}`;
  if (unproven.test(code)) {
    return new ForkdError("remote_refused", `${name} does not prove who it is: ${code}`, {
      hint: "name the file of its certificate authority in NODE_EXTRA_CA_CERTS",
      cause: error,
    });
  }
  const status = error instanceof Error && "statusCode" in error ? Number(error.statusCode) : 0;
  // A proxy's own answer to CONNECT.
  if (code === "ERR_PROXY_TUNNEL" && status >= 400) return statusFailure(status, message);
  if (code !== "ENOTFOUND") return unreachable(message, error);
  return new ForkdError("remote_not_found", message, {
    hint: "check the host's name",
    cause: error,
  });
}

/** What an answer that is no success means; reads a little of its body for the reason. */
export async function failureOf(answer: IncomingMessage, name: string): Promise<ForkdError> {
  const status = answer.statusCode ?? 0;
  const said = await reasonIn(answer);
  const message = `${name} answered ${status}${said === "" ? "" : `: ${said}`}`;
  return statusFailure(status, message, answer.headers["retry-after"]);
}

/** The failure that an HTTP status stands for, of whatever client. */
export function statusFailure(status: number, message: string, retryAfter?: string): ForkdError {
  if (passing.has(status)) return retryLater(message, retryAfter);
  if (status === 404 || status === 410) return new ForkdError("remote_not_found", message);
  if (status === 401 || status === 403) return new ForkdError("remote_refused", message);
  return new ForkdError("remote_refused", message, {
    hint: "check that the address is one of a file, and takes this method",
  });
}

async function reasonIn(answer: IncomingMessage): Promise<string> {
  const timer = setTimeout(() => answer.destroy(), bodyMaxMs);
  let text = "";
  try {
    for await (const chunk of answer.setEncoding("latin1")) {
      text += chunk;
      if (text.length >= bodyBytesMax) break;
    }
  } catch {
    // What came is all there is; the status says enough.
  } finally {
    clearTimeout(timer);
    answer.destroy();
  }
  return plainReason(text.slice(0, bodyBytesMax));
}

/** The code and message of an S3 error document, else the text without its tags. */
export function plainReason(body: string): string {
  const parts = ["Code", "Message"].map((tag) => {
    return new RegExp(`<${tag}>([^<]{1,${saidCharsMax}})</${tag}>`).exec(body)?.[1];
  });
  const found = parts.filter((part) => part !== undefined).join(": ");
  const text = found === "" ? body.replaceAll(/<[^>]*>/g, " ") : found;
  return text
    .replaceAll(/[^\x20-\x7e]+/g, " ")
    .replaceAll(/ +/g, " ")
    .trim()
    .slice(0, saidCharsMax);
}
