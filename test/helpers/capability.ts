import { missing, type Needs } from "./capabilities.ts";

/** Names for what tests with real VMs need; single programs go by {@link missing}. */
const capabilities = {
  root: { root: true },
  qemu: { programs: ["qemu-system-x86_64"] },
  /** That the device opens; whether it can run a guest is what the engine's own probe finds out. */
  kvm: { devices: ["/dev/kvm"] },
  tun: { devices: ["/dev/net/tun"] },
  loop: { devices: ["/dev/loop-control"] },
  "docker-registry": { programs: ["docker-registry"] },
  crun: { programs: ["crun"] },
  compiler: { programs: ["make", "cc"] },
  network: { network: true },
  "guest-agent": { built: ["guest/build/forkd-agent", "native/build/forkd-launch"] },
} as const satisfies Record<string, Needs>;

export type Capability = keyof typeof capabilities;

/**
 * False when the host has them all, else the first reason: for node:test's `skip`, so that no test
 * is left out in silence.
 */
export function skipWithout(...names: readonly Capability[]): string | false {
  for (const name of names) {
    const reason = missing(capabilities[name]);
    if (reason !== false) return reason;
  }
  return false;
}
