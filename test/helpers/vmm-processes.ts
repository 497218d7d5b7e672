import { readdirSync, readFileSync } from "node:fs";

/** Pids of QEMU processes, or their launchers, whose command line names a path below `dir`. */
export function vmmProcesses(dir: string): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        const line = readFileSync(`/proc/${pid}/cmdline`, "utf8");
        return line.includes("qemu-system-") && line.includes(`${dir}/`);
      } catch {
        return false;
      }
    })
    .map(Number);
}
