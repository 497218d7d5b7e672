import type { SnapshotTag } from "@forkd/api";
import { ChainReader } from "../../store/chain.ts";
import { type CheckScope, type Findings, together } from "./fault.ts";
import { checkImages } from "./images.ts";
import { checkKernels } from "./kernels.ts";
import { checkSnapshots } from "./snapshots.ts";

export type { CheckScope, Fault, Findings } from "./fault.ts";

/**
 * Reads all that is on disk and compares it with what was written: chains, memory against its
 * indexes, device state, root images, kernels; and tells of what has no business to be there. With
 * a tag, only that snapshot, its ancestors and its image. Changes nothing but what is remembered of
 * the bytes, so lists show what it finds; works beside a daemon.
 *
 * Throws snapshot_not_found for a tag, permission_denied, the signal's reason.
 */
export async function checkStore(scope: CheckScope, tag: SnapshotTag | null): Promise<Findings> {
  const snapshots = await checkSnapshots(scope, tag);
  if (tag === null) {
    return together([snapshots, await checkImages(scope, null), await checkKernels(scope)]);
  }
  const { manifest } = await new ChainReader(scope.paths).manifest(tag).catch(() => noManifest);
  const images = manifest === null ? [] : [manifest.rootfs.sha256];
  return together([snapshots, await checkImages(scope, new Set(images))]);
}

/** A snapshot without one is among the faults already. */
const noManifest = { manifest: null } as const;
