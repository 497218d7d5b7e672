import { readdir } from "node:fs/promises";
import { mappedFilesUnder } from "./mapped-files.ts";
import { openFiles, processesBelow } from "./proc.ts";

/**
 * Paths under any of the directories that some process has open, mapped, or as its current
 * directory. Deleted ones end with ` (deleted)`. What is not ours to look at holds nothing.
 */
export async function pathsHeldUnder(dirs: readonly string[]): Promise<ReadonlySet<string>> {
  const held = mappedFilesUnder(dirs);
  for (const dir of dirs) {
    for (const cwd of (await processesBelow(dir)).values()) held.add(cwd);
  }
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  for (const pid of pids) {
    // It may have ended since, or be another user's.
    const files = await openFiles(Number(pid)).catch(() => new Map<number, string>());
    for (const path of files.values()) {
      if (dirs.some((dir) => path.startsWith(`${dir}/`))) held.add(path);
    }
  }
  return held;
}
