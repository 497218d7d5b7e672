import { limits, logEventSchema } from "@forkd/api";
import type { Client } from "./client.ts";
import type { CallControl } from "./deadline.ts";
import { serverEvents } from "./sse.ts";

/** A piece of a log at its bound, each byte escaped at its worst, and some words. */
const eventCharsMax = 6 * limits.logBytesMax + 1024;

/** How a log is followed; there is no deadline unless `timeoutMs` is given. */
export interface FollowLogOptions extends Pick<CallControl, "signal" | "timeoutMs"> {
  /** Begin with the last lines only; default: with all that is kept. */
  readonly lines?: number | undefined;
}

/**
 * The last that a sandbox's VMM printed, then what it prints, until the sandbox has ended. Throws
 * as Client.call, and daemon_unreachable for an answer that was cut off.
 */
export async function* followLog(
  client: Client,
  id: string,
  { lines, signal, timeoutMs }: FollowLogOptions,
): AsyncGenerator<string, void> {
  const call = { params: { id }, query: { lines }, signal, timeoutMs };
  const stream = await client.open("followSandboxLogs", call);
  for await (const data of serverEvents(stream, eventCharsMax)) {
    if (data === null) continue;
    const event = logEventSchema.parse(JSON.parse(data));
    if (event.type === "ended") return;
    yield event.text;
  }
  throw stream.ending(new Error("the answer ended before the sandbox"));
}
