import type { SnapshotTag } from "@forkd/api";
import type { StoredManifest } from "./manifest.ts";

/** Who was made from whom, of the snapshots that could be read. */
export interface Family {
  /** The children of a tag, in the order of their names. */
  childrenOf(tag: SnapshotTag): readonly SnapshotTag[];
  /** All that come from a tag, itself too, each before what it was made from. */
  descendantsFirst(tag: SnapshotTag): readonly SnapshotTag[];
}

export interface Member extends StoredManifest {
  readonly tag: SnapshotTag;
}

/** A link whose parent's name is another snapshot's by now is nobody's child. */
export function familyOf(
  members: readonly Member[],
  writing: readonly { readonly tag: SnapshotTag; readonly parent: SnapshotTag }[],
): Family {
  const hashes = new Map(members.map(({ tag, sha256 }) => [tag, sha256]));
  const children = new Map<SnapshotTag, SnapshotTag[]>();
  const add = (parent: SnapshotTag, child: SnapshotTag): void => {
    children.set(parent, [...(children.get(parent) ?? []), child].sort());
  };
  for (const { tag, manifest } of members) {
    const { parent } = manifest;
    if (parent !== null && hashes.get(parent.tag) === parent.manifest_sha256) add(parent.tag, tag);
  }
  for (const { tag, parent } of writing) if (!hashes.has(tag)) add(parent, tag);
  const childrenOf = (tag: SnapshotTag): readonly SnapshotTag[] => children.get(tag) ?? [];
  // Parents are named by the hash of their manifests, so there is no circle to run in.
  const descendantsFirst = (tag: SnapshotTag): SnapshotTag[] => [
    ...childrenOf(tag).flatMap(descendantsFirst),
    tag,
  ];
  return { childrenOf, descendantsFirst };
}
