import { isIPv4 } from "node:net";
import { Option } from "commander";
import { type HostNetSettings, hostNetDefaults } from "../linux/net/plan.ts";
import { type Flags, flagOf, usage } from "./flags.ts";

/** Each may come from the environment, by upstream's names. The parsers throw bad_request. */
export const netOptions = {
  bridge: new Option("--bridge <name>", "the bridge's name").env("BRIDGE"),
  bridgeIp: new Option("--bridge-ip <address>", "its address, the first of a /16").env("BRIDGE_IP"),
  uplink: new Option("--uplink <device>", "leave the host by this device only").env("UPLINK"),
  device: new Option("--device <name>", "the tap's name").env("TAP"),
  address: new Option("--address <address>", "its address, of a /24").env("TAP_IP"),
  user: new Option("--user <user>", "who may open it besides root").env("USER_OWNS"),
} as const;

export function hostNetSettings(flags: Flags): HostNetSettings {
  const bridgeIp = flags.text("bridgeIp");
  return {
    bridge: deviceName(flags, "bridge") ?? hostNetDefaults.bridge,
    net4: bridgeIp === undefined ? hostNetDefaults.net4 : parseBridgeIp(bridgeIp),
    uplink: deviceName(flags, "uplink"),
  };
}

function parseBridgeIp(text: string): string {
  const net4 = /^(\d{1,3}\.\d{1,3})\.0\.1$/.exec(text)?.[1];
  if (net4 !== undefined && isIPv4(text) && net4 !== "10.42") return net4;
  throw usage(
    `--bridge-ip ${JSON.stringify(text.slice(0, 40))} is not the first address of a /16`,
    "for example: --bridge-ip 10.43.0.1; 10.42 is the guests' own",
  );
}

/** A device's name; it becomes a word of ip(8). Null when absent. */
export function deviceName(flags: Flags, option: string): string | null {
  const name = flags.text(option);
  if (name === undefined) return null;
  // IFNAMSIZ is 16 with the final zero.
  if (/^[A-Za-z0-9][\w.-]{0,14}$/.test(name)) return name;
  throw usage(`${flagOf(option)} ${JSON.stringify(name.slice(0, 40))} is no name of a device`);
}

export function tapAddress(flags: Flags, fallback: string): string {
  const address = flags.text("address") ?? fallback;
  if (isIPv4(address)) return address;
  throw usage(`--address ${JSON.stringify(address.slice(0, 40))} is no IPv4 address`);
}

/** A user's name or number, for ip(8). */
export function parseUser(text: string | undefined): string | null {
  if (text === undefined) return null;
  if (/^[A-Za-z0-9_][\w.-]{0,31}$/.test(text)) return text;
  throw usage(`${JSON.stringify(text.slice(0, 40))} is no name of a user`);
}
