import type { Lineage, LineageNode, SandboxInfo, SnapshotInfo } from "@forkd/api";

type Leaf = Omit<LineageNode, "level">;

/** Puts snapshots and sandboxes into trees: parents first, then their children by age. */
export function lineageOf(
  snapshots: readonly SnapshotInfo[],
  sandboxes: readonly SandboxInfo[],
): Lineage {
  const leaves = [...snapshots.map(snapshotLeaf), ...sandboxes.map(sandboxLeaf)].sort(byAge);
  const tags = new Set(snapshots.map(({ tag }) => tag));
  const isRoot = ({ parent }: Leaf): boolean => parent === null || !tags.has(parent);
  const children = Map.groupBy(
    leaves.filter((leaf) => !isRoot(leaf)),
    ({ parent }) => parent,
  );
  const nodes: LineageNode[] = [];
  const placed = new Set<Leaf>();
  const place = (leaf: Leaf, level: number): void => {
    // What is listed is what is on disk, where a hand-made circle must not take us round for ever.
    if (placed.has(leaf)) return;
    placed.add(leaf);
    nodes.push({ ...leaf, level });
    if (leaf.kind === "sandbox") return;
    for (const child of children.get(leaf.name) ?? []) place(child, level + 1);
  };
  for (const root of leaves.filter(isRoot)) place(root, 0);
  for (const rest of leaves) place(rest, 0);
  return { nodes };
}

function snapshotLeaf(info: SnapshotInfo): Leaf {
  const { branched_from, memory_physical_bytes, warning } = info;
  return {
    kind: "snapshot",
    name: info.tag,
    parent: info.parent_tag ?? null,
    status: info.status,
    bootable: info.bootable,
    created_at_unix: info.created_at_unix,
    ...(branched_from === undefined ? {} : { branched_from }),
    ...(memory_physical_bytes === undefined ? {} : { memory_physical_bytes }),
    ...(warning === undefined ? {} : { warning }),
  };
}

function sandboxLeaf(info: SandboxInfo): Leaf {
  return {
    kind: "sandbox",
    name: info.id,
    parent: info.snapshot_tag,
    status: info.state,
    created_at_unix: info.created_at_unix,
  };
}

function byAge(a: Leaf, b: Leaf): number {
  return a.created_at_unix - b.created_at_unix || (a.name < b.name ? -1 : 1);
}
