import type { SnapshotInfo } from "@forkd/api";
import { ForkdError } from "@forkd/api";
import type { Client } from "./client.ts";
import { type CallControl, Deadline, timeoutSlowMs } from "./deadline.ts";

/** First wait between two looks at a snapshot; each later one is twice as long. */
const lookWaitFirstMs = 20;
const lookWaitMaxMs = 1000;

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
 * Waits while a snapshot is being written. Throws snapshot_not_found, snapshot_incomplete when its
 * writing failed, deadline_exceeded (after five minutes unless told otherwise), and the signal's
 * reason.
 */
export async function untilReady(
  client: Client,
  tag: string,
  { signal, timeoutMs = timeoutSlowMs, retriesMax }: CallControl,
): Promise<SnapshotInfo> {
  const deadline = new Deadline(`waiting for snapshot '${tag}'`, timeoutMs, signal);
  const control = { signal: deadline.signal, retriesMax };
  try {
    for (let waitMs = lookWaitFirstMs; ; waitMs = Math.min(2 * waitMs, lookWaitMaxMs)) {
      const info = await findSnapshot(client, tag, control);
      if (info.status === "ready") return info;
      if (info.status === "failed") throw failed(info);
      await deadline.sleep(waitMs);
    }
  } catch (thrown) {
    if (thrown instanceof ForkdError) throw thrown;
    throw deadline.ending(thrown)?.reason ?? thrown;
  }
}

function failed({ tag, warning }: SnapshotInfo): ForkdError {
  const why = warning === undefined ? "" : `: ${warning}`;
  return new ForkdError("snapshot_incomplete", `snapshot '${tag}' could not be written${why}`, {
    hint: "remove it, and branch the sandbox again",
  });
}
