import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { constants, open, stat } from "node:fs/promises";
import { ForkdError, limits } from "@forkd/api";

const placeholderPattern = /^(?:REPLACE_ME|CHANGE_ME)/;
const tokenPattern = /^[\x21-\x7e]+$/;

/** The trimmed content of the token file. Throws config_invalid for one that protects nothing. */
export async function loadToken(path: string): Promise<string> {
  const token = (await readHead(path)).trim();
  const flaw = findFlaw(token);
  if (flaw === undefined) return token;
  throw new ForkdError("config_invalid", `the token in ${path} ${flaw}`, {
    hint: `write one with: head -c 32 /dev/urandom | base64 > ${path}`,
  });
}

function findFlaw(token: string): string | undefined {
  if (token === "") return "is empty";
  if (placeholderPattern.test(token)) return "is a placeholder";
  if (token.length < limits.tokenBytesMin) return `is shorter than ${limits.tokenBytesMin} bytes`;
  if (token.length > limits.tokenBytesMax) return `is longer than ${limits.tokenBytesMax} bytes`;
  return tokenPattern.test(token) ? undefined : "has characters that no HTTP header may carry";
}

/** Enough of the file to see that it is too long; a token file may be any path, even a device. */
async function readHead(path: string): Promise<string> {
  try {
    // Without waiting for a writer, should it be a pipe.
    await using file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const { buffer, bytesRead } = await file.read(Buffer.alloc(limits.tokenBytesMax + 64));
    return buffer.toString("utf8", 0, bytesRead);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new ForkdError("config_invalid", `cannot read the token: ${reason}`, { cause: error });
  }
}

/**
 * A comparison whose time tells nothing of the secret: both sides become HMACs under a key that
 * this process forgets with its end, and HMACs have one length.
 */
export function tokenMatcher(token: string): (candidate: string) => boolean {
  const key = randomBytes(32);
  const digest = (text: string): Buffer => createHmac("sha256", key).update(text).digest();
  const expected = digest(token);
  return (candidate) => timingSafeEqual(digest(candidate), expected);
}

/** The token that requests must carry now. */
export class TokenGate {
  #matches: (candidate: string) => boolean;

  constructor(token: string) {
    this.#matches = tokenMatcher(token);
  }

  /** From here on this token opens and the one before does not. */
  replace(token: string): void {
    this.#matches = tokenMatcher(token);
  }

  matches(candidate: string): boolean {
    return this.#matches(candidate);
  }
}

/** Whether the permissions of a file let its group or everybody read it. */
export async function readableByOthers(path: string): Promise<boolean> {
  return ((await stat(path)).mode & 0o044) !== 0;
}
