import { type EvalEnd, type EvalEvent, limits, toForkdError } from "@forkd/api";
import { EvalFeed, type ForkService } from "../../fork/service.ts";
import { StreamAnswer, type StreamCall, type StreamHandlers } from "../streams.ts";
import { eventHeaders } from "./events.ts";
import { prefixFaults } from "./fault-prefix.ts";
import type { GuestGates } from "./guest.ts";

/** Evals that are followed. They take the places of all that runs inside a sandbox. */
export function evalStreams(
  service: ForkService,
  { calls, commands }: Pick<GuestGates, "calls" | "commands">,
): Pick<StreamHandlers, "streamEval"> {
  return {
    streamEval: async ({ params: { id }, body, signal }: StreamCall<"streamEval">) => {
      const feed = new EvalFeed();
      const work = async (): Promise<EvalEnd> =>
        await prefixFaults("eval", () => service.evalStreamed(id, body, { feed, signal }));
      const ended = calls.run(() => commands.run(id, work)).finally(() => feed.end());
      ended.catch(() => undefined);
      // What is refused before the code has said anything is an answer like any other.
      await feed.wait(limits.eventHeartbeatMs);
      if (feed.isOver) await ended;
      return new StreamAnswer(lines(feed, ended), eventHeaders);
    },
  };
}

async function* lines(feed: EvalFeed, ended: Promise<EvalEnd>): AsyncGenerator<Uint8Array, void> {
  while (!feed.isOver) {
    const piece = feed.take();
    if (piece === undefined) {
      await feed.wait(limits.eventHeartbeatMs);
      if (feed.isSilent) yield Buffer.from(": alive\n\n");
      continue;
    }
    const { from, text, bytes } = piece;
    if (text !== "") yield line({ type: from, text });
    feed.took(bytes);
  }
  for (const from of ["stdout", "stderr"] as const) {
    const text = feed.rest(from);
    if (text !== "") yield line({ type: from, text });
  }
  yield line(await last(ended));
}

async function last(ended: Promise<EvalEnd>): Promise<EvalEvent> {
  try {
    return { type: "result", ...(await ended) };
  } catch (thrown) {
    return { type: "error", ...toForkdError(thrown).toProblem() };
  }
}

function line(event: EvalEvent): Uint8Array {
  return Buffer.from(`event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`);
}
