import type { SnapshotTag } from "@forkd/api";
import type { Chain, ScratchImage } from "./chain.ts";
import type { Manifest } from "./manifest.ts";
import type { MemoryImage } from "./overlays.ts";

/** A snapshot that can be forked: its whole chain is there and is what was written. */
export interface Snapshot {
  readonly tag: SnapshotTag;
  readonly dir: string;
  readonly manifest: Manifest;
  /** What links to this snapshot name it by. */
  readonly manifestSha256: string;
  readonly vmstateFile: string;
  readonly rootImage: string;
  readonly memory: MemoryImage;
  /** What the disks of its children begin with; null when they have none. */
  readonly scratch: ScratchImage | null;
  readonly chain: Chain;
}
