/** Names of devices, the same in every namespace. */
export const deviceNames = { tap: "forkd-tap0", uplink: "veth0", bridge: "forkd-br0" } as const;

/** The nftables table of forkd, in the host's namespace and in each child's. */
export const tableName = "forkd";

/** A bridge of Linux has 1024 ports (BR_MAX_PORTS). */
export const childrenMax = 1000;

/** Where the names of a namespace are, see ip-netns(8). */
export const netnsDir = "/run/netns";

/** Upstream's addresses of every guest and of its side of the tap. */
export const guestShared = "10.42.0.2";
export const gateway4 = "10.42.0.1";
/** Unique local prefixes (RFC 4193); the middle spells forkd. */
const guestPrefix6 = "fd42:666f:726b::";
const linkPrefix6 = "fd43:666f:726b::";
export const gateway6 = `${guestPrefix6}1`;
/** All that guests have, as their namespace sees it. */
export const guestNets = { ip4: "10.42.0.0/16", ip6: `${guestPrefix6}/64` } as const;

/** The daemon's relay for name servers listens there, on the bridge; guests ask port 53. */
export const dnsRelayPort = 8853;

/** How a host's side is laid out; what is not said is upstream's. */
export interface HostNetSettings {
  readonly bridge: string;
  /** First two bytes of a /16: the bridge has the address `.0.1` of it. */
  readonly net4: string;
  /** Traffic leaves by this device only; null: by any. */
  readonly uplink: string | null;
}

export const hostNetDefaults: HostNetSettings = {
  bridge: deviceNames.bridge,
  net4: "10.43",
  uplink: null,
};

export interface BridgeNet {
  readonly ip4: string;
  readonly ip6: string;
  readonly mac: string;
  readonly nets: { readonly ip4: string; readonly ip6: string };
}

/** What the bridge and all children's uplinks share. */
export function bridgeNet(net4: string): BridgeNet {
  return {
    ip4: `${net4}.0.1`,
    ip6: `${linkPrefix6}1`,
    mac: "02:fd:43:00:00:01",
    nets: { ip4: `${net4}.0.0/16`, ip6: `${linkPrefix6}/64` },
  };
}

/** The names and addresses of one child's namespace. */
export interface ChildNet {
  readonly number: number;
  /** The namespace. */
  readonly name: string;
  readonly netnsFile: string;
  /** The host's end of its uplink. */
  readonly hostLink: string;
  /** Of its uplink's own end: what the world sees it as. */
  readonly ip4: string;
  readonly ip6: string;
  readonly mac: string;
  /** The guest's own, besides the one that all guests have. */
  readonly guest4: string;
  readonly guest6: string;
  readonly bridge: BridgeNet;
}

/** `number` is 1 to {@link childrenMax}. */
export function childNet(number: number, net4: string = hostNetDefaults.net4): ChildNet {
  const name = childName(number);
  // The bridge has the first address of its network, so child 1 has the second.
  const onBridge = number + 1;
  return {
    number,
    name,
    netnsFile: `${netnsDir}/${name}`,
    hostLink: `forkd-v-${number}h`,
    ip4: `${net4}.${onBridge >> 8}.${onBridge & 255}`,
    ip6: `${linkPrefix6}${onBridge.toString(16)}`,
    mac: `02:fd:43:00:${hexByte(onBridge >> 8)}:${hexByte(onBridge & 255)}`,
    guest4: `10.42.${1 + (number >> 8)}.${number & 255}`,
    guest6: `${guestPrefix6}${(0x1000 + number).toString(16)}`,
    bridge: bridgeNet(net4),
  };
}

function hexByte(value: number): string {
  return value.toString(16).padStart(2, "0");
}

export function childName(number: number): string {
  return `forkd-child-${number}`;
}

/** The number of a child's namespace; undefined for any other name. */
export function childNumber(name: string): number | undefined {
  const digits = /^forkd-child-([1-9]\d{0,3})$/.exec(name)?.[1];
  const number = digits === undefined ? 0 : Number(digits);
  return number >= 1 && number <= childrenMax ? number : undefined;
}
