import { ForkdError } from "@forkd/api";
import { isErrno } from "../lib/atomic.ts";
import type { Logger } from "../lib/log.ts";
import { DnsRelay } from "../linux/net/dns-relay.ts";
import { dnsRelayPort } from "../linux/net/plan.ts";

/** Nobody tells when another process lets go of the address. */
const retryEveryMs = 5_000;

/**
 * The relay of name servers, from the first sandbox on that needs it. One process of a host has its
 * address; the others wait until that ends, so that all sandboxes of the host are served.
 */
export class NameService {
  readonly #log: Logger;
  #relay: Promise<DnsRelay | undefined> | undefined;
  #retry: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(log: Logger) {
    this.#log = log;
  }

  /** Serves on a bridge's address. Throws netns_unavailable when that is not there. */
  async serve(address: string): Promise<void> {
    if (this.#closed) return;
    this.#relay ??= this.#open(address);
    await this.#relay;
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#retry);
    const relay = await this.#relay?.catch(() => undefined);
    await relay?.[Symbol.asyncDispose]();
  }

  async #open(address: string): Promise<DnsRelay | undefined> {
    try {
      return await DnsRelay.open({ address, port: dnsRelayPort });
    } catch (error) {
      this.#relay = undefined;
      if (!isErrno(error, "EADDRINUSE")) throw unavailable(address, error);
      clearTimeout(this.#retry);
      this.#retry = setTimeout(() => void this.#again(address), retryEveryMs).unref();
      return undefined;
    }
  }

  async #again(address: string): Promise<void> {
    await this.serve(address).catch((cause: unknown) =>
      this.#log.warn("sandboxes are not served names", { address, cause }),
    );
  }
}

function unavailable(address: string, cause: unknown): ForkdError {
  const why = cause instanceof Error ? cause.message : String(cause);
  const message = `sandboxes cannot be served names on ${address}: ${why}`;
  return new ForkdError("netns_unavailable", message, {
    hint: "set up the bridge again with: sudo forkd netns setup N",
    cause,
  });
}
