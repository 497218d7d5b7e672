import { readdirSync, readFileSync } from "node:fs";

/**
 * The files under any of the directories that some process has mapped (proc(5), maps). Synchronous,
 * for worker threads: a host with many VMs has megabytes of it. Processes that end meanwhile, or
 * that are not ours to look at, have none.
 */
export function mappedFilesUnder(dirs: readonly string[]): Set<string> {
  const found = new Set<string>();
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    const maps = readMaps(pid);
    for (const dir of dirs) collect(maps, `${dir}/`, found);
  }
  return found;
}

function readMaps(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/maps`, "utf8");
  } catch {
    return "";
  }
}

function collect(maps: string, prefix: string, found: Set<string>): void {
  for (let at = maps.indexOf(prefix); at !== -1; ) {
    const end = maps.indexOf("\n", at);
    found.add(maps.slice(at, end));
    at = maps.indexOf(prefix, end);
  }
}
