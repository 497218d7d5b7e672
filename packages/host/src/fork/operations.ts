import type { Attestation, BranchBody, SandboxId, SandboxInfo, SnapshotInfo } from "@forkd/api";
import type { AuditSink, OperationEntry } from "./audit-log.ts";
import { type Actor, OperationLog } from "./operation-log.ts";
import type { ForkService, SpawnedSandbox, SpawnRequest } from "./service.ts";

type Audited = Pick<ForkService, "spawn" | "kill" | "branch">;

/** What is audited beyond the request: each sandbox that is made, ended or branched. */
export class Operations {
  readonly #service: Audited;
  readonly #log: OperationLog;

  constructor(service: Audited, sink: AuditSink<OperationEntry>) {
    this.#service = service;
    this.#log = new OperationLog(sink);
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
    const spawned = await this.#log.orFailure(actor, about, this.#service.spawn(request));
    for (const { info } of spawned) this.#log.write(actor, { ...about, ...ofChild(info) });
    return spawned;
  }

  async #kill(actor: Actor, id: SandboxId): Promise<void> {
    const about = { operation: "kill", sandbox_id: id } as const;
    await this.#log.orFailure(actor, about, this.#service.kill(id));
    this.#log.write(actor, { ...about, outcome: "ok" });
  }

  async #branch(actor: Actor, id: SandboxId, request: BranchBody): Promise<SnapshotInfo> {
    const about = { operation: "branch", sandbox_id: id } as const;
    const info = await this.#log.orFailure(actor, about, this.#service.branch(id, request));
    this.#log.write(actor, { ...about, snapshot_tag: info.tag, outcome: "ok" });
    return info;
  }
}

function ofChild({ id, identity }: SandboxInfo) {
  return { sandbox_id: id, outcome: "ok", identity: identity && summaryOf(identity) } as const;
}

/** Without what hooks printed, which may hold anything. */
function summaryOf(identity: Attestation): Attestation {
  return { ...identity, hooks: identity.hooks.map(({ name, ok }) => ({ name, ok })) };
}
