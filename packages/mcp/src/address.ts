import { BlockList, isIPv4, isIPv6 } from "node:net";
import { ForkdError } from "@forkd/api";

/** A TCP address to listen at; port 0 lets the kernel choose. */
export interface Address {
  readonly host: string;
  readonly port: number;
}

const addressPattern = /^(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+)):(\d{1,5})$/;

/** `127.0.0.1:8890`, `[::1]:8890`, `localhost:0`. Throws bad_request. */
export function parseAddress(text: string): Address {
  const [, v6, name, digits] = addressPattern.exec(text) ?? [];
  const host = v6 ?? name;
  const port = Number(digits);
  if (host !== undefined && (v6 === undefined || isIPv6(v6)) && port <= 65_535) {
    return { host, port };
  }
  throw new ForkdError("bad_request", `${JSON.stringify(text)} is not HOST:PORT`, {
    hint: "for example: --http 127.0.0.1:8890",
  });
}

const loopback = new BlockList();
loopback.addSubnet("127.0.0.0", 8, "ipv4");
loopback.addAddress("::1", "ipv6");

/** Whether only this machine reaches the address. Names other than localhost do not count. */
export function isLoopback(host: string): boolean {
  const bare = host.replace(/^\[|\]$/g, "");
  if (isIPv4(bare)) return loopback.check(bare, "ipv4");
  if (isIPv6(bare)) return loopback.check(bare, "ipv6");
  return bare.toLowerCase() === "localhost";
}
