import type { Egress, EgressRule } from "@forkd/api";
import {
  type ChildNet,
  deviceNames,
  dnsRelayPort,
  gateway4,
  guestNets,
  guestShared,
  tableName,
} from "./plan.ts";
import { metadataAddresses, netOf, protectedNets, reachOf } from "./protected.ts";

/** Who may use a child's namespace, and for what. */
export interface Tenant {
  /** Frames of the guest that come from another card are dropped. */
  readonly mac: string;
  readonly egress: Egress;
  /**
   * A number that no tenant of the namespace had before: what the kernel tracked for others does
   * not count for this one (nft(8), ct zone).
   */
  readonly zone: number;
}

/** Marks connections that were redirected to the relay of name servers. */
const dnsMark = "0x35";
const { tap, uplink } = deviceNames;

/**
 * The whole table of a child's namespace, for `nft -f`: what was there is replaced at one instant.
 * Without a tenant nothing passes.
 */
export function childRules(child: ChildNet, tenant: Tenant | null): string {
  return [
    `table inet ${tableName}`,
    `delete table inet ${tableName}`,
    `table inet ${tableName} {`,
    ...(tenant === null ? idleChains() : tenantChains(child, tenant)).map((line) => `  ${line}`),
    "}",
    "",
  ].join("\n");
}

function idleChains(): string[] {
  return ["input", "forward", "output"].map(
    (hook) => `chain ${hook} { type filter hook ${hook} priority filter; policy drop; }`,
  );
}

function tenantChains(child: ChildNet, tenant: Tenant): string[] {
  return [
    ...zoneChains(tenant.zone),
    ...spoofChain(child, tenant.mac),
    ...ownChains(),
    "chain forward {",
    "  type filter hook forward priority filter; policy drop;",
    "  ct state invalid drop",
    "  ct state established,related accept",
    `  iifname "${tap}" oifname "${uplink}" goto egress`,
    "}",
    "chain egress {",
    ...egressLines(child, tenant.egress).map((line) => `  ${line}`),
    "}",
    ...natChains(child, tenant.egress),
  ];
}

function zoneChains(zone: number): string[] {
  return ["prerouting", "output"].map(
    (hook) => `chain zone_${hook} { type filter hook ${hook} priority raw; ct zone set ${zone}; }`,
  );
}

/** A guest, or one that has not become itself yet, speaks with its own addresses or not at all. */
function spoofChain(child: ChildNet, mac: string): string[] {
  return [
    "chain spoof {",
    "  type filter hook prerouting priority mangle; policy accept;",
    `  iifname "${tap}" ether saddr != ${mac} drop`,
    `  iifname "${tap}" ip saddr != { ${guestShared}, ${child.guest4} } drop`,
    `  iifname "${tap}" ip6 saddr != { ::, fe80::/10, ${child.guest6} } drop`,
    "}",
  ];
}

/**
 * What the namespace itself hears and says: neighbours, and clients of the guest that were started
 * inside of it. The VMM runs there too, and has no other way out.
 */
function ownChains(): string[] {
  const neighbours = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept";
  const chain = (hook: string, device: string): string[] => [
    `chain ${hook} {`,
    `  type filter hook ${hook} priority filter; policy drop;`,
    "  ct state established,related accept",
    `  ${device} "lo" accept`,
    `  ${neighbours}`,
    ...(hook === "output" ? [`  ${device} "${tap}" accept`] : []),
    "}",
  ];
  return [...chain("input", "iifname"), ...chain("output", "oifname")];
}

/** Whether a policy has the host's name servers answer. */
export function allowsDns({ dns, default: fallback }: Egress): boolean {
  return dns ?? fallback === "allow";
}

/** docs/network.md has this order; the first line that matches decides. */
function egressLines({ bridge }: ChildNet, egress: Egress): string[] {
  const allowed = (reach: string): string[] =>
    egress.allow.filter((rule) => reachOf(rule) === reach).map((rule) => line(rule, "accept"));
  const refuse = "reject with icmpx admin-prohibited";
  return [
    ...(allowsDns(egress) ? [`ct mark ${dnsMark} accept`] : []),
    // Other children, the host's side and the relay of name servers: no rule opens those.
    ...refuseAll(
      { ip4: [bridge.nets.ip4, guestNets.ip4], ip6: [bridge.nets.ip6, guestNets.ip6] },
      refuse,
    ),
    ...egress.deny.map((rule) => line(rule, refuse)),
    ...allowed("metadata"),
    ...refuseAll(metadataAddresses, refuse),
    ...allowed("protected"),
    ...refuseAll(protectedNets, refuse),
    ...allowed("public"),
    egress.default === "allow" ? "accept" : refuse,
  ];
}

function refuseAll(
  nets: { readonly ip4: readonly string[]; readonly ip6: readonly string[] },
  refuse: string,
): string[] {
  return [
    `ip daddr { ${nets.ip4.join(", ")} } ${refuse}`,
    `ip6 daddr { ${nets.ip6.join(", ")} } ${refuse}`,
  ];
}

function line({ cidr, ports, protocol }: EgressRule, verdict: string): string {
  const { family } = netOf(cidr);
  const to = `${family === "ip4" ? "ip" : "ip6"} daddr ${cidr}`;
  const protocols = protocol === "any" ? "tcp, udp" : protocol;
  if (ports.length > 0) {
    return `${to} meta l4proto { ${protocols} } th dport { ${mergePorts(ports)} } ${verdict}`;
  }
  return protocol === "any" ? `${to} ${verdict}` : `${to} meta l4proto ${protocol} ${verdict}`;
}

/** nftables refuses a set whose intervals overlap. */
function mergePorts(ports: readonly (number | string)[]): string {
  const ranges = ports
    .map((port): [number, number] => {
      const [from = 0, to = from] = String(port).split("-").map(Number);
      return [from, to];
    })
    .sort(([a], [b]) => a - b);
  const merged: [number, number][] = [];
  for (const [from, to] of ranges) {
    const last = merged.at(-1);
    if (last !== undefined && from <= last[1] + 1) last[1] = Math.max(last[1], to);
    else merged.push([from, to]);
  }
  return merged.map(([from, to]) => (from === to ? String(from) : `${from}-${to}`)).join(", ");
}

function natChains(child: ChildNet, egress: Egress): string[] {
  const asked = `iifname "${tap}" ip daddr ${gateway4} meta l4proto { tcp, udp } th dport 53`;
  const relay = `${child.bridge.ip4}:${dnsRelayPort}`;
  return [
    "chain name_servers {",
    "  type nat hook prerouting priority dstnat; policy accept;",
    ...(allowsDns(egress) ? [`  ${asked} ct mark set ${dnsMark} dnat ip to ${relay}`] : []),
    "}",
    "chain to_world {",
    "  type nat hook postrouting priority srcnat; policy accept;",
    `  oifname "${uplink}" ip saddr ${guestNets.ip4} snat ip to ${child.ip4}`,
    `  oifname "${uplink}" ip6 saddr ${guestNets.ip6} snat ip6 to ${child.ip6}`,
    "}",
  ];
}
