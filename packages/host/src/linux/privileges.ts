import { readFile } from "node:fs/promises";

/** Bits of a set of capabilities: linux/capability.h. */
const capabilityBits = { net_admin: 12n, sys_admin: 21n } as const;
export type Capability = keyof typeof capabilityBits;

/** From the text of /proc/PID/status (proc(5)): what the process may do now. None when unsaid. */
export function parseCapabilities(status: string): ReadonlySet<Capability> {
  const digits = /^CapEff:\s*([0-9a-f]{1,16})$/m.exec(status)?.[1] ?? "0";
  const mask = BigInt(`0x${digits}`);
  // Its keys are the literal's.
  const names = Object.keys(capabilityBits) as Capability[];
  return new Set(names.filter((name) => (mask & (1n << capabilityBits[name])) !== 0n));
}

/** Whether this process has all of them: root in a container may have none. */
export async function hasCapabilities(...wanted: readonly Capability[]): Promise<boolean> {
  const held = parseCapabilities(await readFile("/proc/self/status", "utf8"));
  return wanted.every((name) => held.has(name));
}
