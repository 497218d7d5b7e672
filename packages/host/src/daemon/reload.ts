import { Server as TlsServer } from "node:tls";
import type { FastifyInstance } from "fastify";
import type { Logger } from "../lib/log.ts";
import type { ServiceManager } from "../linux/service-manager.ts";
import type { Credentials, TlsPem } from "./credentials.ts";
import type { TokenGate } from "./token.ts";

/** What a reload reads, and where it puts that. */
export interface ReloadTargets {
  readonly app: FastifyInstance;
  readonly tokens: TokenGate | null;
  readonly load: () => Promise<Credentials>;
  readonly audit: { reopen(): Promise<void> };
  readonly manager: ServiceManager;
  readonly status: string;
  readonly log: Logger;
}

/** Handshakes follow the same rules before and after a reload. */
export const tlsRules = { minVersion: "TLSv1.2" } as const;

/**
 * Reads token and certificates again and opens the audit log anew, while requests are served.
 * Those in flight keep what let them in; connections keep the certificate that they began with.
 * Files that cannot be used change nothing: the old ones stay in force, and the log says why.
 */
export class Reloader {
  readonly #targets: ReloadTargets;
  #running: Promise<void> | undefined;
  #isAskedAgain = false;

  constructor(targets: ReloadTargets) {
    this.#targets = targets;
  }

  /** However often it is asked, one reload runs at a time, and one more after the last request. */
  request(): void {
    this.#isAskedAgain = true;
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
    });
  }

  /** Resolves when no reload runs. */
  async settled(): Promise<void> {
    await this.#running;
  }

  async #run(): Promise<void> {
    while (this.#isAskedAgain) {
      this.#isAskedAgain = false;
      await this.#reload();
    }
  }

  async #reload(): Promise<void> {
    const { manager, audit, load, status, log } = this.#targets;
    manager.reloading();
    try {
      this.#replace(await load());
      log.info("reloaded: token, certificates");
    } catch (cause) {
      log.error("the reload failed; what was in force stays", { cause });
    }
    // By itself: a log that cannot be opened must not keep an old token in force.
    await audit.reopen().catch((cause: unknown) => {
      log.error("the audit log cannot be opened anew", { cause });
    });
    manager.ready(status);
  }

  #replace({ token, tls }: Credentials): void {
    const { app, tokens } = this.#targets;
    if (tls !== null) replaceCertificate(app.server, tls);
    if (token !== null) tokens?.replace(token);
  }
}

function replaceCertificate(server: unknown, pem: TlsPem): void {
  if (server instanceof TlsServer) server.setSecureContext({ ...pem, ...tlsRules });
}
