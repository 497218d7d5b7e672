import { BlockList } from "node:net";
import type { EgressRule } from "@forkd/api";

/**
 * Where clouds answer a machine with its credentials: of most of them, and of EC2 over IPv6. Only a
 * rule that names one of them and nothing else lets a sandbox there.
 */
export const metadataAddresses = { ip4: ["169.254.169.254"], ip6: ["fd00:ec2::254"] } as const;

/**
 * What is not the public internet: private, shared, link-local, loopback, multicast and reserved
 * (the registries of RFC 6890), and what stands for IPv4 addresses inside of IPv6 ones.
 */
export const protectedNets = {
  ip4: [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
  ],
  ip6: [
    "::/128",
    "::1/128",
    "::ffff:0:0/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "2001::/32",
    "2002::/16",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
  ],
} as const;

export type Family = "ip4" | "ip6";

export interface Net {
  readonly family: Family;
  readonly address: string;
  readonly prefix: number;
}

/** The network of a valid text; an address is a network of one. */
export function netOf(cidr: string): Net {
  const [address = "", prefix] = cidr.split("/");
  const family = address.includes(":") ? "ip6" : "ip4";
  return { family, address, prefix: Number(prefix ?? (family === "ip4" ? 32 : 128)) };
}

/** How much a rule's network was meant: what is broad does not open what is protected. */
export type Reach = "metadata" | "protected" | "public";

export function reachOf({ cidr }: EgressRule): Reach {
  const net = netOf(cidr);
  const metadata: readonly string[] = metadataAddresses[net.family];
  if (metadata.some((address) => isInside(net, netOf(address)))) return "metadata";
  const nets: readonly string[] = protectedNets[net.family];
  return nets.some((outer) => isInside(net, netOf(outer))) ? "protected" : "public";
}

function isInside(inner: Net, outer: Net): boolean {
  if (inner.family !== outer.family || inner.prefix < outer.prefix) return false;
  const type = outer.family === "ip4" ? "ipv4" : "ipv6";
  const list = new BlockList();
  list.addSubnet(outer.address, outer.prefix, type);
  return list.check(inner.address, type);
}
