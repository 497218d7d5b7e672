import type { SnapshotInfo, SnapshotInfoDetail, SnapshotTag } from "@forkd/api";
import type { Chain } from "./chain.ts";
import { measure } from "./files.ts";
import { memoryBytesOf, type StoredManifest } from "./manifest.ts";

/** A snapshot that can be forked as lists show it. */
export function describeSnapshot(chain: Chain): SnapshotInfo {
  const { tag, dir, manifest } = chain.at(-1) ?? chain[0];
  return {
    tag,
    dir,
    created_at_unix: manifest.created_at_unix,
    ...describeOrigin(manifest),
    status: "ready",
    bootable: true,
    engine: manifest.engine.name,
    isolation: manifest.engine.isolation,
    memory_mib: manifest.machine.memory_mib,
    memory_logical_bytes: memoryBytesOf(manifest),
    memory_physical_bytes: manifest.files.memory.physical_bytes,
    chain_depth: chain.length - 1,
    ...(manifest.scratch === null ? {} : { scratch_mib: manifest.scratch.size_mib }),
    image: manifest.rootfs.ref,
  };
}

type Origin = Pick<
  SnapshotInfo,
  | "branched_from"
  | "pause_ms"
  | "pause_us"
  | "diff_ms"
  | "diff_physical_bytes"
  | "diff_logical_bytes"
  | "warning"
  | "parent_tag"
>;

/** What it was made from; absent facts are left out. */
function describeOrigin({ parent, branch }: StoredManifest["manifest"]): Origin {
  const origin = {
    branched_from: branch?.branched_from,
    pause_ms: roundUp(branch?.pause_ms, 1),
    pause_us: roundUp(branch?.pause_ms, 1000),
    diff_ms: roundUp(branch?.diff_ms, 1),
    diff_physical_bytes: branch?.diff_physical_bytes,
    diff_logical_bytes: branch?.diff_logical_bytes,
    warning: branch?.warning,
    parent_tag: parent?.tag,
  };
  const said = Object.entries(origin).filter(([, value]) => value !== undefined && value !== null);
  return Object.fromEntries(said);
}

function roundUp(ms: number | null | undefined, scale: number): number | undefined {
  return ms === null || ms === undefined ? undefined : Math.ceil(ms * scale);
}

/** One that cannot be forked, and why; of its manifest only what could be read. */
export function describeFailed(facts: {
  readonly tag: SnapshotTag;
  readonly dir: string;
  readonly createdAtUnix: number;
  readonly stored: StoredManifest | undefined;
  readonly reason: string;
}): SnapshotInfo {
  const { tag, dir, createdAtUnix, stored, reason } = facts;
  return {
    ...(stored === undefined ? {} : describeOrigin(stored.manifest)),
    tag,
    dir,
    created_at_unix: stored?.manifest.created_at_unix ?? createdAtUnix,
    status: "failed",
    bootable: false,
    warning: reason,
  };
}

/** All that is known of one snapshot; upstream's fields first. */
export async function describeDetail(
  chain: Chain,
  dependents: readonly SnapshotTag[],
): Promise<SnapshotInfoDetail> {
  const info = describeSnapshot(chain);
  const { manifest, memoryFile, vmstateFile } = chain.at(-1) ?? chain[0];
  const memory = await measure(memoryFile);
  const vmstate = await measure(vmstateFile);
  return {
    ...info,
    memory_logical_bytes: memoryBytesOf(manifest),
    memory_physical_bytes: memory.physical_bytes,
    memory_data_bytes: manifest.files.memory.data_bytes,
    vmstate_bytes: vmstate.size,
    ...(manifest.parent === null ? {} : { parent_content_hash: manifest.parent.manifest_sha256 }),
    chain_depth: chain.length - 1,
    ancestors: chain.slice(0, -1).map(({ tag }) => tag),
    dependents: [...dependents],
  };
}
