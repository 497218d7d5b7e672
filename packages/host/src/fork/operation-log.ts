import { toForkdError } from "@forkd/api";
import type { AuditSink, OperationEntry, Principal } from "./audit-log.ts";

/** On whose behalf something is done. */
export interface Actor {
  readonly principal: Principal;
  /** The address of the other end; of a command line, its user: `uid:0`. */
  readonly remote: string;
  /** The request that it belongs to; null without one. */
  readonly requestId: string | null;
}

/** What an entry tells of the operation itself. */
export type OperationFacts = Omit<OperationEntry, "ts" | "principal" | "remote" | "request_id">;

/** Writes entries of what was done, and by whom. */
export class OperationLog {
  readonly #sink: AuditSink<OperationEntry>;

  constructor(sink: AuditSink<OperationEntry>) {
    this.#sink = sink;
  }

  write({ principal, remote, requestId }: Actor, facts: OperationFacts): void {
    this.#sink.write({
      ts: new Date().toISOString(),
      ...facts,
      principal,
      remote,
      request_id: requestId,
    });
  }

  /** An entry if the work fails; who does it writes the one of its success. */
  async orFailure<T>(
    actor: Actor,
    about: Omit<OperationFacts, "outcome">,
    work: Promise<T>,
  ): Promise<T> {
    try {
      return await work;
    } catch (error) {
      const { code } = toForkdError(error);
      this.write(actor, { ...about, outcome: code });
      throw error;
    }
  }
}
