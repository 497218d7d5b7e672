import { readFile, writeFile } from "node:fs/promises";
import { ForkdError } from "@forkd/api";
import { deviceList } from "./devices.ts";
import { loadRules, runIp } from "./enter.ts";
import { withoutTable } from "./host-rules.ts";

/** Its rules are a table of their own: they go with it. */
const hostTapTable = "forkd_tap";
const forwardingFile = "/proc/sys/net/ipv4/ip_forward";

/** One tap in the host's own namespace, for a guest that a program other than forkd runs. */
export interface HostTapSettings {
  readonly tap: string;
  /** The tap's address, of a /24 that the guest is in. */
  readonly address: string;
  /** Who may open it besides root; null: nobody. */
  readonly user: string | null;
  /** Traffic leaves by this device only; null: by any. */
  readonly uplink: string | null;
}

/** The guest reaches what lies behind the uplink; nobody reaches the guest but this host. */
export function hostTapRules({ tap, address, uplink }: HostTapSettings): string {
  const out = uplink === null ? `oifname != "${tap}"` : `oifname "${uplink}"`;
  return `${withoutTable(hostTapTable)}table inet ${hostTapTable} {
  chain forward {
    type filter hook forward priority filter; policy accept;
    iifname "${tap}" ${out} accept
    iifname "${tap}" drop
    oifname "${tap}" ct state established,related accept
    oifname "${tap}" drop
  }
  chain leave {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr ${address}/24 ${out} masquerade
  }
}
`;
}

/** Right when it is there. Throws permission_denied, tool_failed. */
export async function makeHostTap(settings: HostTapSettings): Promise<void> {
  if (process.getuid?.() !== 0) {
    throw new ForkdError("permission_denied", "taps are made by root", {
      hint: "run it with sudo",
    });
  }
  const { tap, address, user } = settings;
  await loadRules(hostTapRules(settings), null);
  const owner = user === null ? "" : ` user ${user}`;
  const isThere = (await deviceList()).has(tap);
  await runIp([
    ...(isThere ? [] : [`tuntap add dev ${tap} mode tap${owner}`]),
    `address replace ${address}/24 dev ${tap}`,
    `link set ${tap} up`,
  ]);
  const isForwarding = (await readFile(forwardingFile, "utf8")).trim() === "1";
  if (!isForwarding) await writeFile(forwardingFile, "1");
}

/** Whether it was there. */
export async function removeHostTap(tap: string): Promise<boolean> {
  await loadRules(withoutTable(hostTapTable), null);
  if (!(await deviceList()).has(tap)) return false;
  await runIp([`link del ${tap}`]);
  return true;
}
