import { copyFile, link, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { ForkdError, type SnapshotTag } from "@forkd/api";
import { type Chain, layersOf } from "./chain.ts";
import { measure } from "./files.ts";
import { scratchLayerPattern, snapshotFiles } from "./layout.ts";
import {
  manifestFormat,
  manifestVersion,
  memoryBytesOf,
  type NewManifest,
  type SnapshotFacts,
} from "./manifest.ts";
import type { IndexFacts, Layer } from "./page-jobs.ts";
import type { PageWorkers } from "./pages.ts";

/**
 * How the memory of a new snapshot comes about. `base`: the whole RAM is written to the staging
 * directory. `link`: the pages that changed are, with a table of them. `flat`: the same, but the
 * snapshot becomes a base, put together from the chain that they changed. `compact`: nothing is,
 * the chain itself becomes a base.
 */
export type StagingKind = "base" | "link" | "flat" | "compact";

const capturedFile = "captured.diff";
const tableFile = "captured.extents";

/** Where the maker of a snapshot puts its parts. Paths are absolute. */
export interface StagedFiles {
  readonly dir: string;
  readonly vmstateFile: string;
  /** Written whole for a base; else sparse, the changed pages at their own addresses. */
  readonly memoryFile: string;
  /** The table of the changed pages: (u64 offset, u64 length) pairs. Not for a base. */
  readonly extentsFile: string;
}

export function stagedFiles(dir: string, kind: StagingKind): StagedFiles {
  const memory = { base: snapshotFiles.memory, link: snapshotFiles.diff };
  const name = kind === "base" || kind === "link" ? memory[kind] : capturedFile;
  return {
    dir,
    vmstateFile: join(dir, snapshotFiles.vmstate),
    memoryFile: join(dir, name),
    extentsFile: join(dir, tableFile),
  };
}

export interface SealOrder {
  readonly kind: StagingKind;
  readonly dir: string;
  readonly tag: SnapshotTag;
  readonly facts: SnapshotFacts;
  /** What the pages changed; null for a base. */
  readonly parent: Chain | null;
  readonly pages: PageWorkers;
}

/**
 * Makes the memory of a staged snapshot what it will be, with its index, and says what its manifest
 * has to say. Nothing but the snapshot's own files is left in the directory.
 */
export async function sealStaged(order: SealOrder): Promise<NewManifest> {
  const { kind, dir, tag, facts, parent, pages } = order;
  const index = await sealMemory(order);
  const { vmstateFile, memoryFile, extentsFile } = stagedFiles(dir, kind);
  await rm(extentsFile, { force: true });
  if (kind === "flat") await rm(memoryFile, { force: true });
  const name = kind === "link" ? snapshotFiles.diff : snapshotFiles.memory;
  const memory = await measure(join(dir, name));
  const vmstate = await measure(vmstateFile);
  const head = parent?.at(-1);
  return {
    ...facts,
    format: manifestFormat,
    version: manifestVersion,
    tag,
    created_at_unix: Math.floor(Date.now() / 1000),
    parent:
      kind === "link" && head !== undefined
        ? { tag: head.tag, manifest_sha256: head.sha256 }
        : null,
    branch: kind === "link" ? withSizes(facts.branch, memory) : facts.branch,
    files: {
      vmstate: {
        size: vmstate.size,
        sha256: await pages.run("hash", { file: vmstateFile }),
      },
      memory: { ...memory, data_bytes: index.dataBytes },
      index: { size: index.size, sha256: index.sha256 },
    },
  };
}

function sealMemory({ kind, dir, facts, parent, pages }: SealOrder): Promise<IndexFacts> {
  const memoryBytes = memoryBytesOf(facts);
  const to = join(dir, snapshotFiles.index);
  const { memoryFile, extentsFile } = stagedFiles(dir, kind);
  const written: Layer = { file: memoryFile, extents: { table: extentsFile } };
  switch (kind) {
    case "base":
      return pages.run("index", { layer: { ...written, extents: "scan" }, memoryBytes, to });
    case "link":
      return pages.run("index", { layer: written, memoryBytes, to });
    case "flat":
    case "compact": {
      if (parent === null) throw new ForkdError("internal", `a ${kind} snapshot needs a parent`);
      const layers = [...layersOf(parent), ...(kind === "flat" ? [written] : [])];
      const file = join(dir, snapshotFiles.memory);
      return pages.run("flatten", { layers, memoryBytes, file, index: to });
    }
  }
}

type Branch = SnapshotFacts["branch"];

/** What the changed pages take, unless the maker has counted otherwise. */
function withSizes(
  branch: Branch,
  memory: { readonly size: number; readonly physical_bytes: number },
): Branch {
  if (branch === null) return null;
  return {
    ...branch,
    diff_physical_bytes: branch.diff_physical_bytes ?? memory.physical_bytes,
    diff_logical_bytes: branch.diff_logical_bytes ?? memory.size,
  };
}

/** Copies what a compacted snapshot takes over as it is: all but manifest, memory and index. */
export async function copyState(from: string, to: string): Promise<void> {
  const { manifest, memory, diff, index } = snapshotFiles;
  const made: readonly string[] = [manifest, memory, diff, index];
  for (const name of await readdir(from)) {
    if (made.includes(name)) continue;
    // A layer of a disk is large and never changes: one file serves both.
    const take = scratchLayerPattern.test(name) ? link : copyFile;
    await take(join(from, name), join(to, name));
  }
}
