import { randomBytes } from "node:crypto";
import {
  type Attestation,
  ForkdError,
  type SandboxId,
  type SandboxInfo,
  type SandboxLimits,
} from "@forkd/api";
import { identify } from "../agent/guest.ts";
import type { AgentSession } from "../agent/session.ts";
import type { RestoredVm, Vm, VmEnd } from "../engine/engine.ts";
import type { Snapshot } from "../store/snapshots.ts";
import type { AskedLimits } from "./asked-limits.ts";
import type { ForkDeps } from "./deps.ts";
import { attachAgent, whileAlive } from "./guest-link.ts";
import { writeRecord } from "./record.ts";
import type { ChildTimings } from "./service.ts";
import { createWorkDir, removeWorkDir } from "./work-dir.ts";

/** A guest that cannot prove its identity in this time is killed: nobody may talk to it. */
const identityTimeoutMs = 60_000;

/** A forked VM whose agent has proven an identity of its own. */
export interface Child {
  readonly id: SandboxId;
  readonly vm: Vm;
  readonly session: AgentSession;
  readonly workDir: string;
  readonly info: SandboxInfo;
}

export interface ForkedChild extends Child {
  readonly timings: ChildTimings;
}

export interface ChildPlan {
  readonly deps: ForkDeps;
  readonly snapshot: Snapshot;
  readonly id: SandboxId;
  readonly limits: AskedLimits;
  /** When the spawn began, as performance.now(); what timings count from. */
  readonly started: number;
}

/** Restores one child and opens it once it is one of its kind. Leaves nothing when it throws. */
export async function forkChild(plan: ChildPlan): Promise<ForkedChild> {
  const { deps, snapshot, id } = plan;
  const workDir = await createWorkDir(deps.paths, id, deps.owner);
  try {
    const began = performance.now();
    const group = await deps.limits.make(id, plan.limits);
    const vm = await deps.engine.restore({
      workDir,
      machine: machineOf(snapshot),
      rootImage: snapshot.rootImage,
      memory: { base: snapshot.memoryFile, overlay: null },
      vmstateFile: snapshot.vmstateFile,
      dieWithParent: !deps.sandboxesOutlive,
      cgroups: group.procsFiles,
    });
    const offset = began - plan.started;
    try {
      const { session, identity } = await open(plan, vm);
      const timings: ChildTimings = {
        processMs: offset + vm.timings.processMs,
        restoredMs: offset + vm.timings.restoredMs,
        identityMs: performance.now() - plan.started,
      };
      const info = describe(plan, { vm, identity, timings, limits: group.limits });
      if (deps.sandboxesOutlive) {
        const attachTokens = [session.nextToken.toString("hex")];
        await writeRecord(workDir, { info, process: vm.process, attachTokens });
      }
      return { id, vm, session, workDir, info, timings };
    } catch (error) {
      await vm.stop();
      throw error;
    }
  } catch (error) {
    await deps.limits.release(id);
    await removeWorkDir(workDir, deps.owner);
    throw error;
  }
}

function machineOf({ manifest }: Snapshot) {
  const { accel, cpu, vcpus, memory_mib } = manifest.machine;
  return { accel, cpu, vcpus, memoryMib: memory_mib };
}

interface Opened {
  readonly session: AgentSession;
  readonly identity: Attestation;
}

/** The attach is written before the guest runs, so that it finds it when it wakes. */
async function open(plan: ChildPlan, vm: RestoredVm): Promise<Opened> {
  const { snapshot, id } = plan;
  const token = Buffer.from(snapshot.manifest.agent.attach_token, "hex");
  const session = await attachAgent(vm, token, identityTimeoutMs);
  const request = {
    generation: snapshot.manifest.agent.generation + 1,
    hostname: id,
    machineId: randomBytes(16).toString("hex"),
  };
  const proven = async (): Promise<Attestation> => {
    // The time in the identity is right only if the guest reads it at once: so once it is awake.
    await Promise.all([vm.resume(), session.hello]);
    const identity = await identify(session, request, identityTimeoutMs);
    requireProof(identity, request);
    return identity;
  };
  const identity = await whileAlive(vm, proven(), async () => ended(id, await vm.ended));
  return { session, identity };
}

/** What the guest says it did must be what it was told. */
function requireProof(
  identity: Attestation,
  request: { readonly generation: number; readonly hostname: string; readonly machineId: string },
): void {
  const proven =
    identity.generation === request.generation &&
    identity.hostname === request.hostname &&
    identity.machine_id === request.machineId &&
    identity.crng_reseeded;
  if (!proven) {
    throw new ForkdError("identity_failed", "the guest's identity is not what it was given");
  }
}

function ended(id: SandboxId, end: VmEnd): ForkdError {
  const how = end.signal ?? `exit ${end.exitCode}`;
  return new ForkdError(
    "engine_failed",
    `the VM of ${id} ended while it started (${how}): ${end.log}`,
  );
}

function describe(
  { snapshot, id }: ChildPlan,
  child: {
    readonly vm: RestoredVm;
    readonly identity: Attestation;
    readonly timings: ChildTimings;
    readonly limits: SandboxLimits;
  },
): SandboxInfo {
  return {
    id,
    snapshot_tag: snapshot.tag,
    netns: null,
    guest_addr: "10.42.0.2:8888",
    created_at_unix: Math.floor(Date.now() / 1000),
    pid: child.vm.process.pid,
    memory_limit_mib: child.limits.memory_limit_mib,
    has_branched: false,
    last_branch_memory_path: null,
    branch_count: 0,
    state: "running",
    engine: snapshot.manifest.engine.name,
    isolation: snapshot.manifest.engine.isolation,
    hostname: child.identity.hostname,
    spawn_ms: Math.round(child.timings.identityMs * 10) / 10,
    limits: child.limits,
    identity: child.identity,
  };
}
