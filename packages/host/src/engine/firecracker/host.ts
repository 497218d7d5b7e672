import type { VmmBroker } from "../broker.ts";
import type { MemoryImage } from "../engine.ts";
import type { JailSettings, JailUsers } from "./jail.ts";
import type { FirecrackerCapabilities, FirecrackerVersion } from "./version.ts";

/** Makes one whole file of an image; the same file for all children, kept by its maker. */
export type Flatten = (image: MemoryImage) => Promise<string>;

/** How long Firecracker may take, ms. */
export interface FirecrackerTimeouts {
  /** From its start to its socket: some milliseconds, after the jailer has copied it. */
  readonly socketMs: number;
  /** For what it does at once. */
  readonly requestMs: number;
  /** Loading takes milliseconds; a hundred children on a small host queue for the CPU. */
  readonly loadMs: number;
  /** It syncs what it writes before it answers: the largest RAM to a slow disk takes minutes. */
  readonly snapshotMs: number;
  /** A resume waits behind a snapshot that is not finished. */
  readonly resumeMs: number;
}

export const timeoutDefaults: FirecrackerTimeouts = {
  socketMs: 10_000,
  requestMs: 10_000,
  loadMs: 60_000,
  snapshotMs: 180_000,
  resumeMs: 180_000,
};

/** What every VM of one engine is started with; found out once. */
export interface FirecrackerHost {
  readonly binary: string;
  readonly version: FirecrackerVersion;
  readonly capabilities: FirecrackerCapabilities;
  readonly jail: { readonly settings: JailSettings; readonly users: JailUsers } | null;
  readonly flatten: Flatten;
  readonly broker: VmmBroker;
  readonly timeouts: FirecrackerTimeouts;
}
