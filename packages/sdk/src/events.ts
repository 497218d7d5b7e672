import type { EventType, ForkdEvent } from "@forkd/api";
import { ForkdError, forkdEventSchema } from "@forkd/api";
import type { Client } from "./client.ts";

/** Characters of one server-sent event; longer ones no daemon sends. */
const eventCharsMax = 64 * 1024;

/** Which events, and from when. */
export interface EventOptions {
  readonly types?: readonly EventType[] | undefined;
  readonly sandboxId?: string | undefined;
  readonly snapshotTag?: string | undefined;
  /** The `id` of the last event that is known: begins with what came after it. */
  readonly after?: string | undefined;
  /** Ends the stream; the reason is thrown. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * What happens at a daemon, as it happens: `for await (const event of events(client))`. It ends
 * when the daemon stops, and throws daemon_unreachable when the connection breaks; go on with
 * `after`. An `events.missed` says that some are lost: then list what there is.
 */
export async function* events(
  client: Client,
  { types, sandboxId, snapshotTag, after, signal }: EventOptions = {},
): AsyncGenerator<ForkdEvent, void> {
  const query = {
    types: types?.join(","),
    sandbox_id: sandboxId,
    snapshot_tag: snapshotTag,
    after,
  };
  const { response, ending } = await client.open("streamEvents", { params: {}, query, signal });
  if (response.body === null) return;
  const decoder = new TextDecoder();
  let text = "";
  try {
    for await (const chunk of response.body) {
      text += decoder.decode(chunk, { stream: true });
      const blocks = text.split("\n\n");
      text = blocks.pop() ?? "";
      if (text.length > eventCharsMax) throw new ForkdError("internal", "an event without an end");
      for (const block of blocks) yield* eventOf(block);
    }
  } catch (thrown) {
    throw ending(thrown);
  }
}

/** Comments and the retry time are no events. */
function* eventOf(block: string): Generator<ForkdEvent, void> {
  const data = block.split("\n").find((line) => line.startsWith("data: "));
  if (data !== undefined) yield forkdEventSchema.parse(JSON.parse(data.slice("data: ".length)));
}
