import type { LineageNode } from "@forkd/api";
import { formatBytes } from "./format.ts";
import { statusWord } from "./snapshot-status.ts";
import { plain } from "./table.ts";

/** Lines of a drawn tree, from nodes that each stand behind their parents. */
export function renderLineage(nodes: readonly LineageNode[]): string[] {
  return nodes.map((node, i) => `${branchesTo(nodes, i)}${describe(node)}`);
}

/** What is drawn in front of a node: a bar where an ancestor has a sibling to come, its own twig. */
function branchesTo(nodes: readonly LineageNode[], at: number): string {
  const level = nodes[at]?.level ?? 0;
  const bars = Array.from({ length: level }, (_, i) => {
    const isOwn = i === level - 1;
    const goesOn = hasSibling(nodes, at, i + 1);
    if (isOwn) return goesOn ? "├─ " : "└─ ";
    return goesOn ? "│  " : "   ";
  });
  return bars.join("");
}

/** Whether another node of that level follows before the tree above it ends. */
function hasSibling(nodes: readonly LineageNode[], at: number, level: number): boolean {
  const next = nodes.slice(at + 1).find((node) => node.level <= level);
  return next?.level === level;
}

function describe(node: LineageNode): string {
  const { kind, name, branched_from: from, memory_physical_bytes: bytes } = node;
  const status = statusWord(node);
  const facts = [
    bytes === undefined ? undefined : formatBytes(bytes),
    from === undefined ? undefined : `of ${from}`,
    status === "ready" ? undefined : status,
    node.warning,
  ].filter((fact) => fact !== undefined);
  const mark = kind === "sandbox" ? "● " : "";
  return plain(`${mark}${name}${facts.length === 0 ? "" : `  (${facts.join(", ")})`}`);
}
