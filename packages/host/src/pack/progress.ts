import type { PackProgress } from "./orders.ts";

/** Between two calls of a progress function. */
const intervalMs = 250;

/** Counts bytes, and tells of them now and then. */
export function progressOf(
  { onProgress }: { readonly onProgress?: (progress: PackProgress) => void },
  totalBytes: number,
): (bytes: number) => void {
  let doneBytes = 0;
  let told = 0;
  return (bytes) => {
    doneBytes += bytes;
    const now = performance.now();
    if (doneBytes < totalBytes && now - told < intervalMs) return;
    told = now;
    onProgress?.({ doneBytes, totalBytes });
  };
}
