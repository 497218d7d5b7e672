import { join } from "node:path";
import { ForkdError, type SnapshotTag, snapshotTagSchema } from "@forkd/api";
import { findBootFile } from "../store/boot-files.ts";
import { layout } from "../store/layout.ts";
import { findRootImage } from "../store/rootfs.ts";
import { type ForkdManifest, knownMember, type Member } from "./manifest.ts";
import type { UnpackScope } from "./scope.ts";
import type { StagedSnapshot } from "./staging.ts";

/** Where what a pack brings goes to. */
export interface Targets {
  /** By the paths of its members; those that this host has already are not in it. */
  readonly paths: ReadonlyMap<string, string>;
  /** The snapshots that are new, by their tags in the pack, the base first. */
  readonly snapshots: ReadonlyMap<SnapshotTag, StagedSnapshot>;
  readonly reused: readonly SnapshotTag[];
}

/**
 * Takes the tags that are needed and makes the staging directories. Throws snapshot_exists,
 * snapshot_in_use, bad_request.
 */
export async function planTargets(scope: UnpackScope, manifest: ForkdManifest): Promise<Targets> {
  const { order, staging } = scope;
  const snapshots = new Map<SnapshotTag, StagedSnapshot>();
  const reused: SnapshotTag[] = [];
  const head = order.tag ?? manifest.tag;
  if (manifest.chain.some(({ tag }) => tag !== manifest.tag && tag === head)) {
    throw new ForkdError("bad_request", `'${head}' is an ancestor's name in this pack`, {
      hint: "choose another --tag",
    });
  }
  for (const { tag, manifest_sha256: sha256 } of manifest.chain) {
    if (tag === manifest.tag) snapshots.set(tag, await staging.snapshot(head, order.force));
    else if (await isHere(scope, tag, sha256)) reused.push(tag);
    else snapshots.set(tag, await staging.snapshot(tag, false));
  }
  const paths = new Map<string, string>();
  for (const { path } of manifest.files) {
    const target = await targetOf(scope, knownMember(path), snapshots);
    if (target !== undefined) paths.set(path, target);
  }
  return { paths, snapshots, reused };
}

/** The same snapshot by its hash, whole. Throws snapshot_exists when another one has its name. */
async function isHere({ host }: UnpackScope, tag: SnapshotTag, sha256: string): Promise<boolean> {
  if (!(await host.store.has(tag))) return false;
  const chain = await host.store.chain(tag);
  if (chain.at(-1)?.sha256 === sha256) return true;
  throw new ForkdError("snapshot_exists", `there is another snapshot '${tag}' than the pack's`, {
    hint: `remove it first: forkd rmi ${tag}`,
  });
}

async function targetOf(
  { host, staging }: UnpackScope,
  member: Member,
  snapshots: ReadonlyMap<SnapshotTag, StagedSnapshot>,
): Promise<string | undefined> {
  switch (member.kind) {
    case "snapshot": {
      const staged = snapshots.get(snapshotTagSchema.parse(member.tag));
      return staged === undefined ? undefined : join(staged.copy.dir, member.name);
    }
    case "image":
    case "record": {
      if ((await findRootImage(host.paths, member.sha256)) !== undefined) return undefined;
      return join(await staging.imagesDir(), `${member.sha256}.${member.kind}`);
    }
    case "boot": {
      if ((await findBootFile(host.paths, member.sha256)) !== undefined) return undefined;
      return join(await staging.bootsDir(), member.sha256);
    }
  }
}

/** The file of an ancestor that is here already; its tag is one of `reused`. */
export function reusedFile({ host }: UnpackScope, path: string): string | undefined {
  const member = knownMember(path);
  if (member.kind !== "snapshot") return undefined;
  return join(layout.snapshotDir(host.paths, snapshotTagSchema.parse(member.tag)), member.name);
}
