import { bridgeNet, dnsRelayPort, type HostNetSettings, tableName } from "./plan.ts";

/**
 * The whole table of the host's namespace, for `nft -f`. Children reach what lies behind the
 * uplink, through their own policies, and nothing else: not each other, and of the host only the
 * relay of name servers. Nobody outside reaches them.
 */
export function hostRules(settings: HostNetSettings): string {
  const { bridge, uplink } = settings;
  const { nets, ip4 } = bridgeNet(settings.net4);
  const out = uplink === null ? `oifname != "${bridge}"` : `oifname "${uplink}"`;
  return `table inet ${tableName}
delete table inet ${tableName}
table inet ${tableName} {
  chain input {
    type filter hook input priority filter; policy accept;
    iifname "${bridge}" jump from_children
  }
  chain from_children {
    ct state established,related accept
    ip daddr ${ip4} meta l4proto { tcp, udp } th dport ${dnsRelayPort} accept
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
    drop
  }
  chain forward {
    type filter hook forward priority filter; policy accept;
    iifname "${bridge}" jump leaving
    oifname "${bridge}" ct state established,related accept
    oifname "${bridge}" drop
  }
  chain leaving {
    oifname "${bridge}" drop
    ip saddr != ${nets.ip4} drop
    ip6 saddr != ${nets.ip6} drop
    ${out} accept
    drop
  }
  chain leave {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr ${nets.ip4} ${out} masquerade
    ip6 saddr ${nets.ip6} ${out} masquerade
  }
}
`;
}

/** A table that is not there is no error. */
export function withoutTable(name: string = tableName): string {
  return `table inet ${name}\ndelete table inet ${name}\n`;
}
