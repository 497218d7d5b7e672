import { ForkdError } from "@forkd/api";
import { emptyReplySchema, thawReplySchema } from "./messages.ts";
import type { AgentSession } from "./session.ts";

/** The guest itself gives up after 2 s; a guest that is emulated on a busy host is slow to say so. */
const holdTimeoutMs = 10_000;
const thawTimeoutMs = 10_000;

/**
 * What must be left of a hold when it is ended after a capture, ms of the guest's clock. Its forks
 * begin with at least as much: time for their attach to arrive, on a host however busy.
 */
export const holdLeftMsMin = 5_000;

/**
 * Stops every process of the guest but its agent, and quiets the channel. It ends with
 * {@link thaw}, with a fork's identity, or by itself after `maxMs` (1,000 to 600,000) unless a host
 * attaches first. Throws AgentError with the agent's code `hold_failed` when the guest's kernel
 * cannot, or a process does not stop in time; nothing is held then.
 */
export async function hold(session: AgentSession, maxMs: number): Promise<void> {
  await session.request({ op: "hold", max_ms: maxMs }, emptyReplySchema, holdTimeoutMs);
}

/**
 * Ends a hold, if there is one. Returns what was left of it, ms of the guest's clock: 0 when it had
 * ended already, or another host had attached since.
 */
export async function thaw(session: AgentSession): Promise<number> {
  const { hold_left_ms } = await session.request({ op: "thaw" }, thawReplySchema, thawTimeoutMs);
  return hold_left_ms;
}

/**
 * Judges a capture by the {@link thaw} after it: throws agent_unavailable when it was not held all
 * along, or its forks might not be until their identity. Such a capture must not be published.
 */
export function requireHeld(leftMs: number): void {
  if (leftMs >= holdLeftMsMin) return;
  const message = `the guest's hold had ${leftMs} ms left after the capture, too little to trust it`;
  throw new ForkdError("agent_unavailable", message, {
    hint: "retry; the host may be too busy",
  });
}
