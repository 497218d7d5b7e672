import { randomBytes } from "node:crypto";
import {
  type Attestation,
  type Egress,
  type EndReason,
  ForkdError,
  type SandboxId,
  type SandboxInfo,
  type SandboxLimits,
  toForkdError,
} from "@forkd/api";
import { type IdentityRequest, identify } from "../agent/guest.ts";
import type { AgentSession } from "../agent/session.ts";
import type { RestoredVm, Vm, VmEnd } from "../engine/engine.ts";
import type { Snapshot } from "../store/snapshots.ts";
import { AgentLink } from "./agent-link.ts";
import type { AskedLimits } from "./asked-limits.ts";
import type { ForkDeps } from "./deps.ts";
import { outOfMemoryCause } from "./end-cause.ts";
import { attachAgent, whileAlive } from "./guest-link.ts";
import type { Journal } from "./journal.ts";
import type { ChildNetwork } from "./network.ts";
import { childScratch, recordedLayers } from "./scratch.ts";
import type { ChildTimings } from "./service.ts";

/** What a start works with. */
export interface StartScope {
  /** Aborts when the sandbox is to end before it has started. */
  readonly signal: AbortSignal;
  /** Hand the VM over as soon as there is one: from then on the end of the sandbox ends it. */
  readonly holdVm: (vm: Vm) => void;
}

/** A VM whose agent has proven an identity of its own. */
export interface Child {
  readonly vm: Vm;
  readonly agent: AgentLink;
  /** What is on disk of it; what it takes from the host is written there first. */
  readonly journal: Journal;
}

export interface ForkedChild extends Child {
  readonly timings: ChildTimings;
}

export interface ChildPlan {
  readonly deps: ForkDeps;
  readonly snapshot: Snapshot;
  readonly id: SandboxId;
  readonly limits: AskedLimits;
  /** What it may reach by a network of its own; null: it has none. */
  readonly egress: Egress | null;
  /** When the spawn began, as performance.now(); what timings count from. */
  readonly started: number;
}

/** Why a start went wrong, as far as the step that did knows. */
export class StartFailure extends Error {
  readonly reason: EndReason;
  readonly problem: ForkdError;

  constructor(reason: EndReason, thrown: unknown) {
    const problem = toForkdError(thrown);
    super(problem.message, { cause: thrown });
    this.reason = reason;
    this.problem = problem;
  }
}

/**
 * Restores one child and opens it once it is one of its kind. When it throws, a StartFailure, what
 * it took is in the journal, and its VM is with the scope: the sandbox gives both back.
 */
export async function forkChild(
  plan: ChildPlan,
  journal: Journal,
  scope: StartScope,
): Promise<ForkedChild> {
  try {
    return await startChild(plan, journal, scope);
  } catch (error) {
    // What a kill for want of memory broke is never the better reason.
    const cause = await outOfMemoryCause(journal.record);
    if (cause === undefined) throw error;
    throw new StartFailure("oom", new ForkdError("out_of_memory", cause.detail, { cause: error }));
  }
}

async function startChild(
  plan: ChildPlan,
  journal: Journal,
  scope: StartScope,
): Promise<ForkedChild> {
  const { deps } = plan;
  const began = performance.now();
  const { vm, network } = await restore(plan, journal, scope).catch((error: unknown) => {
    throw new StartFailure("spawn_failed", error);
  });
  scope.holdVm(vm);
  deps.onStep("vmm_started");
  await requireOwnDisks(plan, vm).catch((error: unknown) => {
    throw new StartFailure("spawn_failed", error);
  });
  const offset = began - plan.started;
  const { session, identity } = await open(plan, vm, network).catch((error: unknown) => {
    throw new StartFailure(identityReason(error), identityProblem(error));
  });
  deps.onStep("identity_proven");
  const timings: ChildTimings = {
    processMs: offset + vm.timings.processMs,
    restoredMs: offset + vm.timings.restoredMs,
    identityMs: performance.now() - plan.started,
  };
  await journal.write({
    phase: "running",
    info: openedInfo(journal.record.info, { vm, identity, timings }),
    process: vm.process,
    attachTokens: [session.nextToken.toString("hex")],
  });
  deps.onStep("running_recorded");
  const agent = new AgentLink({ vm, journal, onStep: deps.onStep, session });
  return { vm, agent, journal, timings };
}

interface Restored {
  readonly vm: RestoredVm;
  readonly network: ChildNetwork | null;
}

async function restore(
  { deps, snapshot, id, limits: asked, egress }: ChildPlan,
  journal: Journal,
  { signal }: StartScope,
): Promise<Restored> {
  const dirs = await deps.limits.plan(id, asked);
  const resources = dirs.map((path) => ({ kind: "cgroup" as const, path }));
  const group = await journal.take(resources, () => deps.limits.make(id, asked));
  const network = egress === null ? null : await deps.network.reserve(journal, id, egress);
  const info = {
    ...journal.record.info,
    ...(network !== null && { netns: network.netns, egress: network.egress }),
    limits: group.limits,
    memory_limit_mib: group.limits.memory_limit_mib,
  };
  const engine = deps.engines.get(snapshot.manifest.engine.name);
  const { workDir } = journal;
  const scratch = childScratch(snapshot, { kind: engine.scratch, workDir });
  await journal.write({ info, diskLayers: recordedLayers(scratch) });
  signal.throwIfAborted();
  const vm = await engine.restore({
    workDir,
    machine: machineOf(snapshot),
    rootImage: snapshot.rootImage,
    memory: snapshot.memory,
    vmstateFile: snapshot.vmstateFile,
    scratch,
    dieWithParent: !deps.sandboxesOutlive,
    cgroups: group.procsFiles,
    network: network?.vm ?? null,
    signal,
  });
  return { vm, network };
}

/** The VM has not run yet: what it has open is all that it could ever write. */
function requireOwnDisks({ deps, snapshot, id }: ChildPlan, vm: Vm): Promise<void> {
  return deps.disks.admit(vm, id, sharedFiles(snapshot));
}

/** What all children of a snapshot read. */
export function sharedFiles({ memory, vmstateFile, rootImage, scratch }: Snapshot): string[] {
  const pages = memory.overlay === null ? [] : [memory.overlay.file, memory.overlay.extents];
  const disk = (scratch?.layers ?? []).map(({ file }) => file);
  return [rootImage, memory.base, ...pages, vmstateFile, ...disk];
}

function machineOf({ manifest }: Snapshot) {
  const { accel, cpu, vcpus, memory_mib, nic } = manifest.machine;
  return { accel, cpu, vcpus, memoryMib: memory_mib, nic };
}

interface Opened {
  readonly session: AgentSession;
  readonly identity: Attestation;
}

/** The attach is written before the guest runs, so that it finds it when it wakes. */
async function open(
  plan: ChildPlan,
  vm: RestoredVm,
  network: ChildNetwork | null,
): Promise<Opened> {
  const { deps, snapshot, id } = plan;
  const { identityTimeoutMs } = deps;
  const token = Buffer.from(snapshot.manifest.agent.attach_token, "hex");
  const session = await attachAgent(vm, token, identityTimeoutMs);
  const request = {
    generation: snapshot.manifest.agent.generation + 1,
    hostname: id,
    machineId: randomBytes(16).toString("hex"),
    net: network?.guest ?? null,
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
function requireProof(identity: Attestation, request: IdentityRequest): void {
  const proven =
    identity.generation === request.generation &&
    identity.hostname === request.hostname &&
    identity.machine_id === request.machineId &&
    identity.mac === (request.net?.mac ?? null) &&
    identity.crng_reseeded;
  if (!proven) {
    throw new ForkdError("identity_failed", "the guest's identity is not what it was given");
  }
}

function identityReason(error: unknown): EndReason {
  return toForkdError(error).code === "deadline_exceeded" ? "identity_timeout" : "identity_failed";
}

/** Whatever its agent did instead of proving itself; the death of its VMM is told as it was. */
function identityProblem(thrown: unknown): ForkdError {
  const error = toForkdError(thrown);
  if (error.code !== "agent_unavailable" && error.code !== "deadline_exceeded") return error;
  const message = `the guest did not prove an identity of its own: ${error.message}`;
  return new ForkdError("identity_failed", message, { cause: thrown });
}

function ended(id: SandboxId, end: VmEnd): ForkdError {
  const how = end.signal ?? `exit ${end.exitCode}`;
  return new ForkdError(
    "engine_failed",
    `the VM of ${id} ended while it started (${how}): ${end.log}`,
  );
}

const unlimited: SandboxLimits = {
  memory_limit_mib: null,
  cpu_limit: null,
  pids_limit: null,
  io_read_bps: null,
  io_write_bps: null,
  not_in_force: [],
};

/** What is known of a child before anything of it is there. */
export function draftInfo({ snapshot, id }: ChildPlan): SandboxInfo {
  return {
    id,
    snapshot_tag: snapshot.tag,
    netns: null,
    guest_addr: "10.42.0.2:8888",
    created_at_unix: Math.floor(Date.now() / 1000),
    pid: null,
    memory_limit_mib: null,
    has_branched: false,
    last_branch_memory_path: null,
    branch_count: 0,
    state: "starting",
    end: null,
    engine: snapshot.manifest.engine.name,
    isolation: snapshot.manifest.engine.isolation,
    hostname: id,
    spawn_ms: null,
    limits: unlimited,
    ...(snapshot.scratch === null ? {} : { scratch_mib: snapshot.scratch.sizeMib }),
    identity: null,
  };
}

function openedInfo(
  draft: SandboxInfo,
  child: {
    readonly vm: RestoredVm;
    readonly identity: Attestation;
    readonly timings: ChildTimings;
  },
): SandboxInfo {
  return {
    ...draft,
    pid: child.vm.process.pid,
    state: "running",
    hostname: child.identity.hostname,
    spawn_ms: Math.round(child.timings.identityMs * 10) / 10,
    identity: child.identity,
  };
}
