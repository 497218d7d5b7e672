import { type EventType, type ForkdEvent, limits, type RouteQuery } from "@forkd/api";
import type { EventLog } from "../../fork/events.ts";
import { requestGate } from "../gate.ts";
import { StreamAnswer, type StreamCall, type StreamHandlers } from "../streams.ts";

/** `stopping` ends every stream, so that none holds up the end of the daemon. */
export function eventStreams(
  log: EventLog,
  stopping: AbortSignal,
): Pick<StreamHandlers, "streamEvents"> {
  const clients = requestGate(limits.eventClientsMax, "clients of events");
  return {
    streamEvents: async ({ query, headers, signal }: StreamCall<"streamEvents">) => {
      const header = headers["last-event-id"];
      const after = query.after ?? (typeof header === "string" ? header : undefined);
      const over = Promise.withResolvers<void>();
      const ended = AbortSignal.any([signal, stopping]);
      ended.addEventListener("abort", () => over.resolve(), { once: true });
      if (ended.aborted) over.resolve();
      const { promise, resolve, reject } = Promise.withResolvers<StreamAnswer>();
      // The place is held until the client has gone.
      const place = clients.run(async () => {
        resolve(new StreamAnswer(lines(log, { after, query, signal: ended }), eventHeaders));
        await over.promise;
      });
      place.catch(reject);
      return await promise;
    },
  };
}

/** Of an answer of server-sent events. */
export const eventHeaders = {
  "content-type": "text/event-stream; charset=utf-8",
  // Proxies that keep answers back until they are whole would keep these for ever.
  "x-accel-buffering": "no",
};

interface Reading {
  readonly after: string | undefined;
  readonly query: RouteQuery<"streamEvents">;
  readonly signal: AbortSignal;
}

async function* lines(
  log: EventLog,
  { after, query, signal }: Reading,
): AsyncGenerator<Uint8Array, void> {
  const wanted = filterOf(query);
  const known = log.positionAfter(after);
  let position = known ?? 0;
  let sentAt = performance.now();
  yield Buffer.from(`retry: ${limits.eventRetryMs}\n\n`);
  if (known === undefined) yield missedLine("the daemon has begun anew; list what there is");
  while (!signal.aborted) {
    const page = log.since(position);
    if (page.missed && position > 0) {
      yield missedLine("the client was too slow, or away for too long; list what there is");
    }
    position = page.next;
    for (const event of page.events.filter(wanted)) {
      yield eventLine(event);
      sentAt = performance.now();
    }
    if (performance.now() - sentAt >= limits.eventHeartbeatMs) {
      yield Buffer.from(": alive\n\n");
      sentAt = performance.now();
    }
    // The client may have been slow to take those: then there are more already.
    if (log.since(position).events.length > 0) continue;
    const silentMs = performance.now() - sentAt;
    await log.wait(Math.max(1, Math.ceil(limits.eventHeartbeatMs - silentMs)), signal);
  }
}

function filterOf({ types, sandbox_id, snapshot_tag }: Reading["query"]) {
  const names = types === undefined ? null : new Set(types.split(","));
  return (event: ForkdEvent): boolean =>
    (names === null || names.has(event.type)) &&
    (sandbox_id === undefined || event.sandbox_id === sandbox_id) &&
    (snapshot_tag === undefined || event.snapshot_tag === snapshot_tag);
}

function eventLine(event: ForkdEvent): Uint8Array {
  return Buffer.from(`id: ${event.id}\nevent: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`);
}

/** Without an id of its own line: the client's Last-Event-ID stays what it was. */
function missedLine(reason: string): Uint8Array {
  const type: EventType = "events.missed";
  const event: ForkdEvent = { id: "", type, at_unix_ms: Date.now(), reason };
  return Buffer.from(`event: ${type}\ndata: ${JSON.stringify(event)}\n\n`);
}
