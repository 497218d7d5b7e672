import type { EventType, ForkdEvent } from "@forkd/api";
import { forkdEventSchema } from "@forkd/api";
import type { Client } from "./client.ts";
import { serverEvents } from "./sse.ts";

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
  options: EventOptions = {},
): AsyncGenerator<ForkdEvent, void> {
  for await (const event of eventBeats(client, options)) if (event !== null) yield event;
}

/**
 * As {@link events}, with null for a sign of life: the first comes when the stream begins, the
 * others while nothing happens.
 */
export async function* eventBeats(
  client: Client,
  { types, sandboxId, snapshotTag, after, signal }: EventOptions,
): AsyncGenerator<ForkdEvent | null, void> {
  const query = {
    types: types?.join(","),
    sandbox_id: sandboxId,
    snapshot_tag: snapshotTag,
    after,
  };
  const stream = await client.open("streamEvents", { params: {}, query, signal });
  for await (const data of serverEvents(stream, eventCharsMax)) {
    yield data === null ? null : forkdEventSchema.parse(JSON.parse(data));
  }
}
