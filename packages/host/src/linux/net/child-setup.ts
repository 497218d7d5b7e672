import { childRules } from "./child-rules.ts";
import { type ChildNet, deviceNames, gateway4, gateway6, type HostNetSettings } from "./plan.ts";

const { tap, uplink } = deviceNames;

export interface ChildOptions {
  /** Who may open the tap besides root; null: nobody. */
  readonly user: string | null;
  /** Whether the host speaks IPv6. */
  readonly ipv6: boolean;
}

/** Lines of ip(8) for the host's side: the namespace, and its uplink on the bridge. */
export function hostLines(
  child: ChildNet,
  { bridge }: HostNetSettings,
  { ipv6 }: ChildOptions,
): string[] {
  const { name, hostLink, mac, ip4, ip6 } = child;
  const neighbour = `lladdr ${mac} dev ${bridge} nud permanent`;
  return [
    `netns add ${name}`,
    `link add ${hostLink} type veth peer name ${uplink} address ${mac} netns ${name}`,
    `link set ${hostLink} addrgenmode none master ${bridge} up`,
    // Ports that are isolated reach the bridge's own address only, not each other.
    `link set ${hostLink} type bridge_slave isolated on`,
    // A host's table of neighbours has a thousand places for all namespaces; these do not count.
    `neigh replace ${ip4} ${neighbour}`,
    ...(ipv6 ? [`neigh replace ${ip6} ${neighbour}`] : []),
  ];
}

/** What runs inside, once: its rules come first, before any of its devices is up. */
export function insideScript(child: ChildNet, options: ChildOptions): string {
  const sysctls = [
    "ipv4/ip_forward=1",
    "ipv4/conf/all/accept_redirects=0",
    "ipv4/conf/all/send_redirects=0",
    ...(options.ipv6 ? ["ipv6/conf/all/forwarding=1", "ipv6/conf/all/accept_redirects=0"] : []),
  ].map((setting) => {
    const [name, value] = setting.split("=");
    return `echo ${value} >/proc/sys/net/${name}`;
  });
  return [
    "nft -f - <<'RULES'",
    `${childRules(child, null)}RULES`,
    ...sysctls,
    "ip -batch - <<'LINES'",
    ...insideLines(child, options),
    "LINES",
    "",
  ].join("\n");
}

function insideLines(child: ChildNet, { user, ipv6 }: ChildOptions): string[] {
  const { bridge } = child;
  const owner = user === null ? "" : ` user ${user}`;
  const neighbour = `lladdr ${bridge.mac} dev ${uplink} nud permanent`;
  return [
    "link set lo up",
    `tuntap add dev ${tap} mode tap${owner}`,
    `address add ${gateway4}/24 dev ${tap}`,
    `address add ${child.ip4}/16 dev ${uplink}`,
    `link set ${tap} up`,
    `link set ${uplink} up`,
    `route add ${child.guest4}/32 dev ${tap}`,
    `neigh replace ${bridge.ip4} ${neighbour}`,
    `route add default via ${bridge.ip4} dev ${uplink}`,
    ...(ipv6
      ? [
          `address add ${gateway6}/64 dev ${tap} nodad`,
          `address add ${child.ip6}/64 dev ${uplink} nodad`,
          `neigh replace ${bridge.ip6} ${neighbour}`,
          `route add default via ${bridge.ip6} dev ${uplink}`,
        ]
      : []),
  ];
}
