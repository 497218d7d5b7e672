import { join } from "node:path";
import { repoRoot } from "./baked.ts";
import type { SystemVm } from "./system-vm.ts";
import { ports, world } from "./test-world.ts";

const server = "world/tcp-server.mjs";
const unit = "world";
/** The server's runtime starts in seconds there. */
const timeoutMs = 3 * 60_000;

/** What {@link makeWorld} needs in the files of a system VM. */
export const worldFiles = {
  [server]: join(repoRoot, "test/fixtures/tcp-server.mjs"),
} as const;

/** A machine behind a cable of the VM, which answers on its ports; TestWorld, but small. */
export async function makeWorld(vm: SystemVm): Promise<void> {
  const inside = `ip netns exec ${unit}`;
  const steps = [
    "set -e",
    `ip netns add ${unit}`,
    `ip link add uplink0 type veth peer name eth0 netns ${unit}`,
    "ip address add 203.0.113.1/24 dev uplink0 && ip link set uplink0 up",
    `${inside} ip address add ${world.public4}/24 dev eth0 && ${inside} ip link set eth0 up`,
    `systemd-run --unit=${unit} ${inside} /files/node /files/${server} ${ports.web} ${ports.other}`,
    `journalctl --unit ${unit} --follow --no-tail | grep -m 1 listening`,
  ];
  await vm.ok(steps.join("\n"), { timeoutMs });
}
