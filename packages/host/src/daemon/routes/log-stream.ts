import { type LogEvent, limits } from "@forkd/api";
import type { ForkService } from "../../fork/service.ts";
import { requestGate } from "../gate.ts";
import { StreamAnswer, type StreamCall, type StreamHandlers } from "../streams.ts";
import { eventHeaders } from "./events.ts";

/** `stopping` ends every stream, so that none holds up the end of the daemon. */
export function logStreams(
  service: Pick<ForkService, "followLog">,
  stopping: AbortSignal,
): Pick<StreamHandlers, "followSandboxLogs"> {
  const followers = requestGate(limits.logFollowersMax, "followers of logs");
  return {
    followSandboxLogs: async ({ params, query, signal }: StreamCall<"followSandboxLogs">) => {
      // Node keeps a combined signal that is listened to until it aborts.
      const done = new AbortController();
      const ended = AbortSignal.any([signal, stopping, done.signal]);
      const over = Promise.withResolvers<void>();
      ended.addEventListener("abort", () => over.resolve(), { once: true });
      if (ended.aborted) over.resolve();
      const { promise, resolve, reject } = Promise.withResolvers<StreamAnswer>();
      // The place is held until the client has gone, or all was told.
      const place = followers.run(async () => {
        const asked = { lines: query.lines, signal: ended, silenceMs: limits.eventHeartbeatMs };
        const texts = service.followLog(params.id, asked);
        // What is refused is an answer like any other.
        const first = await texts.next();
        const told = lines(first.value ?? "", texts, ended);
        resolve(new StreamAnswer(untilOver(told, over.resolve), eventHeaders));
        await over.promise;
      });
      place.catch(reject).finally(() => done.abort());
      return await promise;
    },
  };
}

async function* lines(
  first: string,
  texts: AsyncIterable<string>,
  ended: AbortSignal,
): AsyncGenerator<Uint8Array, void> {
  yield first === "" ? alive : line({ type: "log", text: first });
  for await (const text of texts) yield text === "" ? alive : line({ type: "log", text });
  if (!ended.aborted) yield line({ type: "ended" });
}

const alive = Buffer.from(": alive\n\n");

function line(event: LogEvent): Uint8Array {
  return Buffer.from(`event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`);
}

async function* untilOver<T>(source: AsyncGenerator<T, void>, over: () => void) {
  try {
    yield* source;
  } finally {
    over();
  }
}
