import assert from "node:assert/strict";
import { test } from "node:test";
import type { SandboxInfo, SnapshotInfo } from "@forkd/api";
import { renderLineage } from "@forkd/host/cli/tree-lines.ts";
import { lineageOf } from "@forkd/host/fork/lineage.ts";

const snapshot = (
  tag: string,
  parent?: string,
  more: Partial<SnapshotInfo> = {},
): SnapshotInfo => ({
  tag,
  dir: `/data/snapshots/${tag}`,
  created_at_unix: 1_700_000_000,
  status: "ready",
  bootable: true,
  ...(parent === undefined ? {} : { parent_tag: parent }),
  ...more,
});

// Only what the lineage looks at: it takes nothing else of a sandbox.
const sandbox = (id: string, tag: string) =>
  ({ id, snapshot_tag: tag, state: "running", created_at_unix: 1_700_000_001 }) as SandboxInfo;

test("a tree is drawn with its branches, sandboxes marked, trouble told", () => {
  const { nodes } = lineageOf(
    [
      snapshot("b", "a", { branched_from: "sb-1", memory_physical_bytes: 4096 }),
      snapshot("a"),
      snapshot("c", "b"),
      snapshot("d", "a", { status: "writing" }),
      snapshot("other", undefined, { bootable: false, warning: "this host has no firecracker" }),
      snapshot("lost", "gone", { status: "failed", warning: "its parent is missing" }),
    ],
    [sandbox("sb-1", "a"), sandbox("sb-2", "c")],
  );
  assert.deepEqual(renderLineage(nodes), [
    "a",
    "├─ b  (4.0 KiB, of sb-1)",
    "│  └─ c",
    "│     └─ ● sb-2  (running)",
    "├─ d  (writing)",
    "└─ ● sb-1  (running)",
    "lost  (failed, its parent is missing)",
    "other  (not_bootable, this host has no firecracker)",
  ]);
});

test("nodes say their parent and how deep they are", () => {
  const { nodes } = lineageOf([snapshot("a"), snapshot("b", "a")], []);
  assert.deepEqual(
    nodes.map(({ name, parent, level }) => [name, parent, level]),
    [
      ["a", null, 0],
      ["b", "a", 1],
    ],
  );
});

test("a circle that somebody made by hand is listed, each once", () => {
  const { nodes } = lineageOf([snapshot("a", "b"), snapshot("b", "a")], []);
  assert.deepEqual(nodes.map(({ name }) => name).sort(), ["a", "b"]);
});
