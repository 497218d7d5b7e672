import type { SandboxInfo } from "@forkd/api";
import type { VmEnd } from "../engine/engine.ts";
import { wasOomKilled } from "../linux/cgroup/group.ts";
import type { EndCause } from "./lifecycle.ts";
import type { SandboxRecord } from "./record.ts";

/** Why a VM ended that nobody asked to. Its control groups are still there. */
export async function endCauseOf(record: SandboxRecord, end: VmEnd): Promise<EndCause> {
  const groups = record.resources.filter(({ kind }) => kind === "cgroup");
  if (await wasOomKilled(groups.map(({ path }) => path))) return outOfMemory(record.info);
  if (end.guestOff !== null) {
    return { reason: "exited", detail: `the guest switched itself off (${end.guestOff})` };
  }
  const how = end.signal ?? (end.exitCode === null ? "unseen" : `exit ${end.exitCode}`);
  const words = end.log === "" ? "" : `: ${end.log}`;
  return { reason: "engine_crash", detail: `its VMM ended by itself (${how})${words}` };
}

function outOfMemory({ limits: { memory_limit_mib: limitMib } }: SandboxInfo): EndCause {
  const whose = limitMib === null ? "the host had none left" : `its limit is ${limitMib} MiB`;
  return { reason: "oom", detail: `the kernel killed its VMM for want of memory: ${whose}` };
}
