import { type LookupAddress, type LookupOptions, lookup } from "node:dns";
import { BlockList, isIP, isIPv6, type LookupFunction } from "node:net";
import { ForkdError } from "@forkd/api";
import { type Env, isProxyHost } from "./proxy.ts";

/**
 * From where an address can be reached, the nearest first. `nowhere` is what no file is ever
 * fetched from: link-local addresses (the metadata services of clouds), multicast and the like.
 */
const reaches = ["loopback", "private", "public", "nowhere"] as const;
export type Reach = (typeof reaches)[number];

/** IANA's registries of special-purpose addresses (RFC 6890); `ipv4` covers mapped ones too. */
const subnets: readonly (readonly [Reach, string, number])[] = [
  ["loopback", "127.0.0.0", 8],
  ["loopback", "::1", 128],
  ["private", "10.0.0.0", 8],
  ["private", "172.16.0.0", 12],
  ["private", "192.168.0.0", 16],
  ["private", "100.64.0.0", 10],
  ["private", "198.18.0.0", 15],
  ["private", "fc00::", 7],
  ["private", "64:ff9b::", 96],
  ["nowhere", "0.0.0.0", 8],
  ["nowhere", "169.254.0.0", 16],
  ["nowhere", "192.0.0.0", 24],
  ["nowhere", "224.0.0.0", 3],
  ["nowhere", "::", 128],
  ["nowhere", "fe80::", 10],
  ["nowhere", "ff00::", 8],
];

const lists = new Map(reaches.map((reach) => [reach, listOf(reach)]));

function listOf(reach: Reach): BlockList {
  const list = new BlockList();
  for (const [of, net, prefix] of subnets) {
    if (of === reach) list.addSubnet(net, prefix, isIPv6(net) ? "ipv6" : "ipv4");
  }
  return list;
}

/** What kind of address a numeric one is. */
export function reachOf(address: string): Reach {
  const family = isIPv6(address) ? "ipv6" : "ipv4";
  return reaches.find((reach) => lists.get(reach)?.check(address, family)) ?? "public";
}

/**
 * Where one command may go: to the address that its user named, wherever that is, and from there
 * to what that server names (redirects, an index), but never nearer. A public server cannot send us
 * to this host or into its network; see docs/remotes.md.
 */
export class Itinerary {
  readonly #named: URL;
  /** Of the named host, once it was connected to; what it turns into later is a hop. */
  #addresses: ReadonlySet<string> | undefined;
  /** The farthest of those addresses. */
  #reach: Reach = "public";

  /** Of whoever named the address; it may name proxies. */
  readonly env: Env;

  constructor(named: URL, env: Env = {}) {
    this.#named = named;
    this.env = env;
  }

  /** Throws remote_refused for an address that nobody may send us to. */
  requireHop(hop: URL): void {
    if (hop.protocol !== "http:" && hop.protocol !== "https:") {
      throw refused(`${this.#named.host} sends us to a ${hop.protocol} address`);
    }
    if (hop.protocol === "http:" && this.#named.protocol === "https:") {
      throw refused(`${this.#named.host} sends us from https to http://${hop.host}`);
    }
    if (hop.username !== "" || hop.password !== "") {
      throw refused(`${this.#named.host} sends us to ${hop.host} with a password`);
    }
  }

  /**
   * Resolves names for one connection to `url`, and refuses what is too near. It is the resolved
   * address that is connected to, so a name cannot change its mind in between. A proxy may be
   * anywhere, as the user names it; what it connects to it resolves itself. Throws remote_refused
   * for a host that is an address itself and too near.
   */
  lookupFor(url: URL): LookupFunction {
    const host = url.hostname.replace(/^\[|\]$/g, "");
    // No name is looked up then.
    if (isIP(host) !== 0) this.#admit(url, [host]);
    return (name, options, callback) => {
      resolve(name, options, (error, found) => {
        if (error !== null) return callback(error, []);
        try {
          const addresses = found.map(({ address }) => address);
          const isProxy = name !== host && isProxyHost(name, this.env);
          if (!isProxy) this.#admit(url, addresses);
        } catch (refusal) {
          return callback(refusal instanceof Error ? refusal : new Error(String(refusal)), []);
        }
        const [first] = found;
        if (options.all === true || first === undefined) return callback(null, found);
        callback(null, first.address, first.family);
      });
    };
  }

  #admit(url: URL, addresses: readonly string[]): void {
    const ranks = addresses.map((address) => reaches.indexOf(reachOf(address)));
    if (this.#addresses === undefined && url.host === this.#named.host) {
      this.#addresses = new Set(addresses);
      this.#reach = reaches[Math.max(...ranks)] ?? "public";
      return;
    }
    if (addresses.every((address) => this.#addresses?.has(address))) return;
    const nearest = reaches.indexOf(this.#reach);
    const nowhere = reaches.indexOf("nowhere");
    if (ranks.every((rank) => rank >= nearest && rank < nowhere)) return;
    throw refused(`${this.#named.host} sends us to ${url.host}, which is nearer than itself`);
  }
}

type Resolved = (error: NodeJS.ErrnoException | null, found: LookupAddress[]) => void;

function resolve(name: string, options: LookupOptions, done: Resolved): void {
  lookup(name, { ...options, all: true }, (error, found) => done(error, error ? [] : found));
}

function refused(message: string): ForkdError {
  return new ForkdError("remote_refused", message, {
    hint: "if you trust that address, name it yourself: forkd pull URL --sha256 HASH",
  });
}
