import type { SnapshotInfo } from "@forkd/api";
import { ForkdError, limits } from "@forkd/api";
import type { Client } from "./client.ts";
import { type CallControl, Deadline, timeoutSlowMs } from "./deadline.ts";
import { eventBeats } from "./events.ts";

/** First wait between two looks without events; each later one is twice as long. */
const lookWaitFirstMs = 20;
const lookWaitMaxMs = 1000;
/** What a snapshot that is being written can become, and that something of it was missed. */
const types = ["snapshot.ready", "snapshot.failed", "snapshot.removed", "events.missed"] as const;
/** A daemon says at once that its events begin, unless a proxy keeps that back. */
const beginMaxMs = 2_000;
/** Longer than a stream of events is ever silent. */
const silenceMaxMs = 2 * limits.eventHeartbeatMs;

/** The snapshot once it is written, undefined before. Throws as {@link untilReady}. */
type Look = () => Promise<SnapshotInfo | undefined>;

/** One snapshot as the daemon lists it. Throws snapshot_not_found. */
export async function findSnapshot(
  client: Client,
  tag: string,
  control: CallControl,
): Promise<SnapshotInfo> {
  const snapshots = await client.listSnapshots(control);
  const found = snapshots.find((snapshot) => snapshot.tag === tag);
  if (found !== undefined) return found;
  throw new ForkdError("snapshot_not_found", `snapshot '${tag}' not found`);
}

/**
 * Waits while a snapshot is being written: for the daemon's word of it, or by looking again where
 * there are no events (an older daemon, a place that is not free, a proxy that keeps them back).
 * Throws snapshot_not_found, snapshot_incomplete when its writing failed, deadline_exceeded (after
 * five minutes unless told otherwise), and the signal's reason.
 */
export async function untilReady(
  client: Client,
  tag: string,
  { signal, timeoutMs = timeoutSlowMs, retriesMax }: CallControl,
): Promise<SnapshotInfo> {
  const deadline = new Deadline(`waiting for snapshot '${tag}'`, timeoutMs, signal);
  const control = { signal: deadline.signal, retriesMax };
  const look: Look = async () => writtenOf(await findSnapshot(client, tag, control));
  try {
    return (
      (await look()) ??
      (await byEvents(client, tag, { look, over: deadline.signal })) ??
      (await byLooks(deadline, look))
    );
  } catch (thrown) {
    if (thrown instanceof ForkdError) throw thrown;
    throw deadline.ending(thrown)?.reason ?? thrown;
  }
}

/** Undefined when events do not come, or come no more: whoever looks then is told why. */
async function byEvents(
  client: Client,
  tag: string,
  { look, over }: { readonly look: Look; readonly over: AbortSignal },
): Promise<SnapshotInfo | undefined> {
  const stop = new AbortController();
  const signal = AbortSignal.any([over, stop.signal]);
  const beats = eventBeats(client, { types, snapshotTag: tag, signal });
  try {
    // The first beat says that nothing is missed from here on; so the first look is after it.
    for (let maxMs = beginMaxMs; await hasBeat(beats, maxMs, stop); maxMs = silenceMaxMs) {
      const info = await look();
      if (info !== undefined) return info;
    }
    return undefined;
  } finally {
    stop.abort();
  }
}

async function hasBeat(
  beats: ReturnType<typeof eventBeats>,
  maxMs: number,
  stop: AbortController,
): Promise<boolean> {
  const timer = setTimeout(() => stop.abort(), maxMs);
  try {
    return (await beats.next()).done !== true;
  } catch {
    return false;
  } finally {
    clearTimeout(timer);
  }
}

async function byLooks(deadline: Deadline, look: Look): Promise<SnapshotInfo> {
  for (let waitMs = lookWaitFirstMs; ; waitMs = Math.min(2 * waitMs, lookWaitMaxMs)) {
    await deadline.sleep(waitMs);
    const info = await look();
    if (info !== undefined) return info;
  }
}

function writtenOf(info: SnapshotInfo): SnapshotInfo | undefined {
  const { tag, status, warning } = info;
  if (status !== "failed") return status === "ready" ? info : undefined;
  const why = warning === undefined ? "" : `: ${warning}`;
  throw new ForkdError("snapshot_incomplete", `snapshot '${tag}' could not be written${why}`, {
    hint: "remove it, and branch the sandbox again",
  });
}
