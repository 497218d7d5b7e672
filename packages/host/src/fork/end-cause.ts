import type { VmEnd } from "../engine/engine.ts";
import { wasOomKilled } from "../linux/cgroup/group.ts";
import type { EndCause } from "./lifecycle.ts";
import type { SandboxRecord } from "./record.ts";

/** Why a VM ended that nobody asked to. Its control groups are still there. */
export async function endCauseOf(record: SandboxRecord, end: VmEnd): Promise<EndCause> {
  const oom = await outOfMemoryCause(record);
  if (oom !== undefined) return oom;
  if (end.guestOff !== null) {
    return { reason: "exited", detail: `the guest switched itself off (${end.guestOff})` };
  }
  const how = end.signal ?? (end.exitCode === null ? "unseen" : `exit ${end.exitCode}`);
  const words = end.log === "" ? "" : `: ${end.log}`;
  return { reason: "engine_crash", detail: `its VMM ended by itself (${how})${words}` };
}

/**
 * The cause when the kernel killed the sandbox's VMM for want of memory, else undefined. Its
 * control groups are still there.
 */
export async function outOfMemoryCause(record: SandboxRecord): Promise<EndCause | undefined> {
  const groups = record.resources.filter(({ kind }) => kind === "cgroup");
  if (!(await wasOomKilled(groups.map(({ path }) => path)))) return undefined;
  const limitMib = record.info.limits.memory_limit_mib;
  const whose = limitMib === null ? "the host had none left" : `its limit is ${limitMib} MiB`;
  return { reason: "oom", detail: `the kernel killed its VMM for want of memory: ${whose}` };
}
