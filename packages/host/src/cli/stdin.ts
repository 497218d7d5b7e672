import type { Readable } from "node:stream";
import { ForkdError } from "@forkd/api";

/** Bytes of standard input that fit, as JSON text, in one request to the daemon. */
export const stdinBytesMax = 1024 * 1024;

/** Standard input as text. Throws payload_too_large, and bad_request for what is not UTF-8. */
export async function readStdin(input: Readable): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of input) {
    const part = Buffer.from(chunk);
    bytes += part.length;
    if (bytes > stdinBytesMax) {
      throw new ForkdError("payload_too_large", `--stdin takes at most ${stdinBytesMax} bytes`, {
        hint: "send less, or let the guest's command fetch the data",
      });
    }
    chunks.push(part);
  }
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(Buffer.concat(chunks));
  } catch (error) {
    throw new ForkdError("bad_request", "--stdin takes UTF-8 text only", {
      hint: "encode the data, for example with base64, and decode it in the guest",
      cause: error,
    });
  }
}
