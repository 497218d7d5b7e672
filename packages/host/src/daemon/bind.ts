import { BlockList, isIPv4, isIPv6 } from "node:net";
import type { z } from "zod";

/** A TCP address to listen at; port 0 lets the kernel choose. */
export interface Bind {
  readonly host: string;
  readonly port: number;
}

const bindPattern = /^(?:\[(?<v6>[0-9A-Fa-f:.]+)\]|(?<name>[A-Za-z0-9.-]+)):(?<port>\d{1,5})$/;

/** A zod transform: `127.0.0.1:8889`, `[::1]:8889`, `localhost:0`. */
export function parseBind(text: string, context: z.RefinementCtx): Bind {
  const groups = bindPattern.exec(text)?.groups;
  const host = groups?.["v6"] ?? groups?.["name"] ?? "";
  const port = Number(groups?.["port"] ?? Number.NaN);
  const isHost = groups?.["v6"] === undefined ? host !== "" : isIPv6(host);
  if (isHost && port <= 65_535) return { host, port };
  context.addIssue({
    code: "custom",
    message: `${JSON.stringify(text)} is not ADDR:PORT, for example 127.0.0.1:8889 or [::1]:8889`,
  });
  return { host: "127.0.0.1", port: 0 };
}

/** `ADDR:PORT` with brackets around an IPv6 address. */
export function formatBind({ host, port }: Bind): string {
  return isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`;
}

const loopback = new BlockList();
loopback.addSubnet("127.0.0.0", 8, "ipv4");
loopback.addAddress("::1", "ipv6");

/** Whether only this machine reaches the address. Names other than localhost do not count. */
export function isLoopback(host: string): boolean {
  if (isIPv4(host)) return loopback.check(host, "ipv4");
  if (isIPv6(host)) return loopback.check(host, "ipv6");
  return host.toLowerCase() === "localhost";
}
