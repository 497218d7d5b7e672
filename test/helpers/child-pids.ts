import { readFileSync } from "node:fs";
import { findProcess } from "@forkd/host/linux/proc.ts";

const brokerName = "forkd-broker";

/** Pids of the living programs that this process started, itself or by its brokers; not those. */
export function childPids(): number[] {
  return childrenOf(process.pid).flatMap((pid) =>
    nameOf(pid) === brokerName ? childrenOf(pid) : [pid],
  );
}

/** Pids of this process's living brokers. */
export function brokerPids(): number[] {
  return childrenOf(process.pid).filter((pid) => nameOf(pid) === brokerName);
}

/** Of the main thread, which starts them all (proc(5), /proc/PID/task/TID/children). */
function childrenOf(pid: number): number[] {
  const text = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8");
  const pids = text.split(" ").filter((word) => word !== "");
  return pids.map(Number).filter((child) => findProcess(child) !== undefined);
}

function nameOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, "utf8").trim();
  } catch {
    return "";
  }
}
