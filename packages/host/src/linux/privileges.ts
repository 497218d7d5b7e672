import { readFile } from "node:fs/promises";

/** Bits of a set of capabilities: linux/capability.h. */
const capabilityBits = { net_admin: 12n, sys_admin: 21n, sys_nice: 23n } as const;
export type Capability = keyof typeof capabilityBits;

/** `CapEff` is what a process may do now, `CapBnd` what its descendants can have, even as root. */
type CapabilitySet = "CapEff" | "CapBnd";

/** From the text of /proc/PID/status (proc(5)); none when it does not say. */
export function parseCapabilities(
  status: string,
  set: CapabilitySet = "CapEff",
): ReadonlySet<Capability> {
  const digits = new RegExp(`^${set}:\\s*([0-9a-f]{1,16})$`, "m").exec(status)?.[1] ?? "0";
  const mask = BigInt(`0x${digits}`);
  // Its keys are the literal's.
  const names = Object.keys(capabilityBits) as Capability[];
  return new Set(names.filter((name) => (mask & (1n << capabilityBits[name])) !== 0n));
}

/** Asked at every restore, and we never change them. */
let own: Promise<ReadonlySet<Capability>> | undefined;

/** Whether this process has all of them: root in a container may have none. */
export async function hasCapabilities(...wanted: readonly Capability[]): Promise<boolean> {
  own ??= readFile("/proc/self/status", "utf8").then((status) => parseCapabilities(status));
  const held = await own;
  return wanted.every((name) => held.has(name));
}
