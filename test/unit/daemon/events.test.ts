import assert from "node:assert/strict";
import { test } from "node:test";
import { limits } from "@forkd/api";
import { eventStreams } from "@forkd/host/daemon/routes/events.ts";
import type { StreamAnswer } from "@forkd/host/daemon/streams.ts";
import { EventLog } from "@forkd/host/fork/events.ts";

type Call = Parameters<ReturnType<typeof eventStreams>["streamEvents"]>[0];

function callOf(signal: AbortSignal, after?: string): Call {
  const query = after === undefined ? {} : { after };
  const bytes = (async function* () {})();
  return { params: {}, query, body: undefined, headers: {}, bytes, signal };
}

/** The answer's texts, one at a time. */
function reader(answer: unknown): () => Promise<string> {
  // The route answers with a stream and nothing else.
  const bytes = (answer as StreamAnswer).bytes[Symbol.asyncIterator]();
  return async () => {
    const { value, done } = await bytes.next();
    return done === true ? "(end)" : Buffer.from(value).toString("utf8");
  };
}

test("a client that is too slow learns what it has missed, and goes on", async () => {
  const log = new EventLog();
  const streams = eventStreams(log, new AbortController().signal);
  const next = reader(await streams.streamEvents(callOf(new AbortController().signal)));
  assert.match(await next(), /^retry: \d+\n\n$/);
  const first = next();
  log.append("sandbox.created", { sandbox_id: "sb-1" });
  assert.match(await first, /^id: .*\nevent: sandbox\.created\ndata: \{.*"sb-1".*\}\n\n$/);
  for (let n = 0; n < limits.eventsKeptMax + 5; n += 1) log.append("snapshot.ready", {});
  assert.match(await next(), /events\.missed.*too slow/);
  assert.match(await next(), /snapshot\.ready/);
});

test("a stream ends with its client and with the daemon", async () => {
  const stopping = new AbortController();
  const gone = new AbortController();
  const streams = eventStreams(new EventLog(), stopping.signal);
  const left = reader(await streams.streamEvents(callOf(gone.signal)));
  const stopped = reader(await streams.streamEvents(callOf(new AbortController().signal)));
  await left();
  await stopped();
  gone.abort();
  assert.equal(await left(), "(end)");
  stopping.abort();
  assert.equal(await stopped(), "(end)");
});

test("the places for clients are bounded, and given back", async () => {
  const streams = eventStreams(new EventLog(), new AbortController().signal);
  const clients = Array.from({ length: limits.eventClientsMax }, () => new AbortController());
  for (const { signal } of clients) await streams.streamEvents(callOf(signal));
  const refused = streams.streamEvents(callOf(new AbortController().signal));
  await assert.rejects(refused, { code: "too_many_requests" });
  clients[0]?.abort();
  // The place is given back in a later turn.
  await new Promise((resolve) => setImmediate(resolve));
  await streams.streamEvents(callOf(new AbortController().signal));
});
