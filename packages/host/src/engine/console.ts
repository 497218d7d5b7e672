import type { Readable } from "node:stream";

/** Characters of a guest's console that are kept for messages. */
const tailCharsMax = 16 * 1024;
/** The agent's log prefix on the console, see docs/guest-protocol.md. */
const agentMarker = "forkd-agent:";

/** Reads a console for ever and keeps its end. */
export function keepTail(console: Readable): () => string {
  let tail = "";
  console.setEncoding("utf8");
  console.on("error", () => undefined);
  console.on("data", (text: string) => {
    tail = (tail + text).slice(-tailCharsMax);
  });
  return () => tail;
}

/** Resolves when the agent has said its first word. */
export function agentSpoke(console: Readable): Promise<true> {
  const tail = keepTail(console);
  return new Promise((resolve) => {
    console.on("data", () => {
      if (tail().includes(agentMarker)) resolve(true);
    });
  });
}
