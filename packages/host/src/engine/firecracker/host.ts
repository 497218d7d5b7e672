import type { MemoryImage } from "../engine.ts";
import type { JailSettings, JailUsers } from "./jail.ts";
import type { FirecrackerCapabilities, FirecrackerVersion } from "./version.ts";

/** Makes one whole file of an image; the same file for all children, kept by its maker. */
export type Flatten = (image: MemoryImage) => Promise<string>;

/** What every VM of one engine is started with; found out once. */
export interface FirecrackerHost {
  readonly binary: string;
  readonly version: FirecrackerVersion;
  readonly capabilities: FirecrackerCapabilities;
  readonly jail: { readonly settings: JailSettings; readonly users: JailUsers } | null;
  readonly flatten: Flatten;
}
