import {
  type Attestation,
  type BranchBody,
  type SandboxId,
  type SandboxInfo,
  type SnapshotInfo,
  toForkdError,
} from "@forkd/api";
import type { AuditSink, OperationEntry, Principal } from "./audit-log.ts";
import type { ForkService, SpawnedSandbox, SpawnRequest } from "./service.ts";

/** On whose behalf something is done. */
export interface Actor {
  readonly principal: Principal;
  /** The address of the other end; of a command line, its user: `uid:0`. */
  readonly remote: string;
  /** The request that it belongs to; null without one. */
  readonly requestId: string | null;
}

type Audited = Pick<ForkService, "spawn" | "kill" | "branch">;

/** What is audited beyond the request: each sandbox that is made, ended or branched. */
export class Operations {
  readonly #service: Audited;
  readonly #sink: AuditSink<OperationEntry>;

  constructor(service: Audited, sink: AuditSink<OperationEntry>) {
    this.#service = service;
    this.#sink = sink;
  }

  /** The same operations, with an entry for each: one a child, or one for all when none is left. */
  as(actor: Actor): Audited {
    return {
      spawn: (request) => this.#spawn(actor, request),
      kill: (id) => this.#kill(actor, id),
      branch: (id, request) => this.#branch(actor, id, request),
    };
  }

  async #spawn(actor: Actor, request: SpawnRequest): Promise<SpawnedSandbox[]> {
    const about = { operation: "spawn", snapshot_tag: request.tag } as const;
    const spawned = await this.#orFailure(actor, about, this.#service.spawn(request));
    for (const { info } of spawned) this.#write(actor, { ...about, ...ofChild(info) });
    return spawned;
  }

  async #kill(actor: Actor, id: SandboxId): Promise<void> {
    const about = { operation: "kill", sandbox_id: id } as const;
    await this.#orFailure(actor, about, this.#service.kill(id));
    this.#write(actor, { ...about, outcome: "ok" });
  }

  async #branch(actor: Actor, id: SandboxId, request: BranchBody): Promise<SnapshotInfo> {
    const about = { operation: "branch", sandbox_id: id } as const;
    const info = await this.#orFailure(actor, about, this.#service.branch(id, request));
    this.#write(actor, { ...about, snapshot_tag: info.tag, outcome: "ok" });
    return info;
  }

  async #orFailure<T>(actor: Actor, about: Omit<Facts, "outcome">, work: Promise<T>): Promise<T> {
    try {
      return await work;
    } catch (error) {
      const { code } = toForkdError(error);
      this.#write(actor, { ...about, outcome: code });
      throw error;
    }
  }

  #write({ principal, remote, requestId }: Actor, facts: Facts): void {
    this.#sink.write({
      ts: new Date().toISOString(),
      ...facts,
      principal,
      remote,
      request_id: requestId,
    });
  }
}

/** What an entry tells of the operation itself. */
type Facts = Omit<OperationEntry, "ts" | "principal" | "remote" | "request_id">;

function ofChild({ id, identity }: SandboxInfo) {
  return { sandbox_id: id, outcome: "ok", identity: identity && summaryOf(identity) } as const;
}

/** Without what hooks printed, which may hold anything. */
function summaryOf(identity: Attestation): Attestation {
  return { ...identity, hooks: identity.hooks.map(({ name, ok }) => ({ name, ok })) };
}
