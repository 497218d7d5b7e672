import type { Readable, Writable } from "node:stream";
import type { SnapshotInfo, SnapshotTag } from "@forkd/api";

/** How far a pack has come: bytes of content, before compression. */
export interface PackProgress {
  readonly doneBytes: number;
  readonly totalBytes: number;
}

/** Whose readers a pack is for. */
export type PackFormat = "forkd" | "upstream";

/** A snapshot with its whole chain, to be written as one file; docs/packs.md. */
export interface PackOrder {
  readonly tag: SnapshotTag;
  /**
   * `file`: an absolute path; the file gets that name once it is complete, and takes the place of
   * another only with `replace`. `stream`: it is written to and ended; when packing fails it is
   * destroyed, and what was written is worthless.
   */
  readonly to: { readonly file: string; readonly replace: boolean } | { readonly stream: Writable };
  /** For people who list packs. */
  readonly description: string | null;
  /** What the root image was made from; null: what the snapshot says. */
  readonly baseImage: string | null;
  /** Whether root image, kernel and initramfs are in the pack, or only their hashes. */
  readonly images: "included" | "named";
  /**
   * `forkd`: docs/packs.md. `upstream`: its version 1, for bases of Firecracker without a scratch
   * disk; the root image is in a file beside the pack then.
   */
  readonly format: PackFormat;
  /** Called a few times a second at most. */
  readonly onProgress?: (progress: PackProgress) => void;
  readonly signal?: AbortSignal;
}

/** What was written. */
export interface PackReport {
  readonly tag: SnapshotTag;
  /** Null when it was written to a stream. */
  readonly path: string | null;
  /** The root image beside a pack of upstream's; null when there is none. */
  readonly root_image_path: string | null;
  /** Of the pack's bytes, hex. */
  readonly sha256: string;
  readonly size_bytes: number;
  /** Content before compression, holes not counted. */
  readonly content_bytes: number;
  /** The snapshots in it, the base first. */
  readonly snapshots: readonly SnapshotTag[];
  readonly memory_mib: number;
  readonly base_image: string;
}

/** A pack to be taken into the store. */
export interface UnpackOrder {
  /** `stream`: the pack's bytes, from the first on; it is read to its end or destroyed. */
  readonly from: { readonly file: string } | { readonly stream: Readable };
  /** What the pack's bytes must hash to, hex; null: nobody said. */
  readonly sha256: string | null;
  /** Another name for the pack's snapshot; its ancestors keep theirs. */
  readonly tag: SnapshotTag | null;
  /** Replace a snapshot of that name, and take what this host cannot run. */
  readonly force: boolean;
  readonly onProgress?: (progress: PackProgress) => void;
  readonly signal?: AbortSignal;
}

/** What was taken. */
export interface UnpackReport {
  readonly tag: SnapshotTag;
  /** Those that are new, the base first. */
  readonly snapshots: readonly SnapshotInfo[];
  /** Ancestors that were here already, the same ones by their hashes. */
  readonly reused: readonly SnapshotTag[];
  /** Why this host cannot run it, or what is missing; empty when nothing is. */
  readonly warnings: readonly string[];
}
