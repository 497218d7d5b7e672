import { withDeadline } from "../lib/deadline.ts";
import type { AgentStream } from "./stream.ts";

/** Beyond a command's own deadline: time for the guest to kill it and to say so. */
export const graceMs = 5_000;

export interface Settling {
  readonly timeoutMs: number;
  readonly signal: AbortSignal | undefined;
  readonly feed: () => Promise<void>;
}

/** Feeds a stream and waits for its reply; what nobody waits for any more is killed. */
export async function settle(
  stream: AgentStream,
  { timeoutMs, signal, feed }: Settling,
): Promise<Buffer> {
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  aborted.catch(() => undefined);
  const onAbort = (): void => reject(signal?.reason);
  signal?.addEventListener("abort", onAbort, { once: true });
  if (signal?.aborted) onAbort();
  let isSettled = false;
  try {
    const fed = feed();
    // A command may end before it has read its input: then the reply says how, not the feeding.
    fed.catch(() => undefined);
    const reply = withDeadline(stream.reply, timeoutMs + graceMs, "the guest's answer");
    const payload = await Promise.race([reply, aborted]);
    isSettled = true;
    return payload;
  } finally {
    signal?.removeEventListener("abort", onAbort);
    if (!isSettled) stream.kill();
    stream.release();
  }
}
