import { PageWorkers } from "../store/pages.ts";
import { takeForkdPack } from "./forkd-pack.ts";
import { packVersion } from "./manifest.ts";
import type { UnpackOrder, UnpackReport } from "./orders.ts";
import type { UnpackHost, UnpackScope } from "./scope.ts";
import { readPack } from "./source.ts";
import { UnpackStaging } from "./staging.ts";
import { takeUpstreamPack } from "./upstream-pack.ts";

/**
 * Takes a pack, of ours or of upstream's, into the store: docs/packs.md. Whether this host can run
 * it is asked before anything is written; what comes goes to staging directories, is hashed there,
 * and gets its names at the end, the base first. When this throws, none of its snapshots is there.
 *
 * Throws pack_invalid for whatever is wrong with the pack, snapshot_incompatible, snapshot_exists,
 * snapshot_in_use, image_not_found, invalid_tag, disk_full, or the signal's reason.
 */
export async function unpackSnapshot(host: UnpackHost, order: UnpackOrder): Promise<UnpackReport> {
  order.signal?.throwIfAborted();
  await using pages = new PageWorkers();
  await using staging = new UnpackStaging(host);
  const scope: UnpackScope = { host, order, staging, pages };
  const finish = await readPack(order, (manifest, archive) =>
    manifest.forkd_pack_version === packVersion
      ? takeForkdPack(scope, manifest, archive)
      : takeUpstreamPack(scope, manifest, archive),
  );
  return await finish();
}
