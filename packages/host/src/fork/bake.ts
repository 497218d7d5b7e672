import { ForkdError, type SnapshotInfo } from "@forkd/api";
import { freeze, warm } from "../agent/guest.ts";
import type { HelloReply } from "../agent/messages.ts";
import { type AgentSession, firstAttachToken } from "../agent/session.ts";
import type { BootedVm, Engine, EngineProbe, Machine } from "../engine/engine.ts";
import { resolveKernel } from "../kernel/resolve.ts";
import { run } from "../lib/exec.ts";
import type { GuestKernel } from "../store/kernels.ts";
import type { SnapshotFacts, SnapshotStaging } from "../store/snapshots.ts";
import type { ForkDeps } from "./deps.ts";
import { attachAgent, whileAlive } from "./guest-link.ts";
import { describeLayers, makeParentScratch } from "./scratch.ts";
import type { BakeRequest, Progress } from "./service.ts";
import { createWorkDir, parentWorkName, removeWorkDir } from "./work-dir.ts";

/** Emulated guests boot in about five seconds on an idle host; a loaded one is much slower. */
const bootTimeoutMs = 120_000;
const freezeTimeoutMs = 30_000;
/** Lines of the guest's console in a message. */
const consoleLinesMax = 12;

interface Parent {
  readonly vm: BootedVm;
  readonly session: AgentSession;
}

/** What the manifest needs to know of how the parent got where it is. */
interface Warmed {
  readonly hello: HelloReply;
  readonly detail: string;
  readonly bootMs: number;
  readonly warmMs: number;
}

export interface BakeOrder {
  readonly request: BakeRequest;
  readonly progress: Progress;
  /** Called once nothing stands in its way: the tag is its own now. */
  readonly onBegin: () => void;
  /** Ends the parent wherever it is; the bake then throws the signal's reason. */
  readonly signal: AbortSignal;
}

/**
 * Boots a parent, warms it, freezes it and publishes the snapshot. When anything fails, the parent
 * is gone, its directory too, and no snapshot is listed.
 */
export async function bake(deps: ForkDeps, order: BakeOrder): Promise<SnapshotInfo> {
  const { request } = order;
  const reservation = await deps.store.reserve(request.tag, request);
  try {
    const kernel = await resolveKernel(deps.paths, {
      vmlinuz: request.kernel?.vmlinuz ?? null,
      initrd: request.kernel?.initrd ?? null,
    });
    const { engine, probe } = await deps.engines.choose({ kernel });
    const machine = engine.machine(probe, request);
    const staging = await reservation.stageBase();
    deps.onStep("bake_staged");
    order.onBegin();
    const workDir = await createWorkDir(deps.paths, {
      name: parentWorkName(),
      owner: deps.owner,
    });
    try {
      return await capture({ ...order, deps, engine, kernel, probe, machine, staging, workDir });
    } finally {
      await removeWorkDir(workDir, deps.owner);
    }
  } finally {
    await reservation.release();
  }
}

interface Plan extends BakeOrder {
  readonly deps: ForkDeps;
  readonly engine: Engine;
  readonly kernel: GuestKernel;
  readonly probe: EngineProbe;
  readonly machine: Machine;
  readonly staging: SnapshotStaging;
  readonly workDir: string;
}

async function capture(plan: Plan): Promise<SnapshotInfo> {
  const { progress, staging } = plan;
  const accel = plan.machine.accel;
  progress(`booting a parent: ${plan.machine.memoryMib} MiB, ${plan.machine.vcpus} vCPU, ${accel}`);
  plan.signal.throwIfAborted();
  const scratch = await makeParentScratch(staging.dir, plan.request.scratchMib, plan.signal);
  const vm = await plan.engine.boot({
    workDir: plan.workDir,
    machine: plan.machine,
    kernel: plan.kernel,
    rootImage: plan.request.image.path,
    memoryFile: staging.memoryFile,
    upperMib: null,
    scratch,
  });
  plan.deps.onStep("bake_booted");
  const onAbort = (): void => void vm.stop();
  plan.signal.addEventListener("abort", onAbort, { once: true });
  try {
    plan.signal.throwIfAborted();
    const session = await whileAlive(vm, meet(plan, vm), () => guestDied(vm));
    const parent = { vm, session };
    const warmed = await whileAlive(vm, warmUp(plan, parent), () => guestDied(vm));
    plan.deps.onStep("bake_warm");
    const freezeMs = await freezeParent(plan, parent);
    plan.deps.onStep("bake_frozen");
    await vm.stop();
    await sparsify(staging.memoryFile);
    const facts = {
      ...describe(plan, parent, { ...warmed, freezeMs }),
      scratch: await describeLayers({
        dir: staging.dir,
        layers: scratch === null ? [] : [scratch],
        sizeMib: plan.request.scratchMib ?? null,
      }),
    };
    plan.signal.throwIfAborted();
    const info = await staging.publish(facts);
    plan.deps.onStep("bake_published");
    return info;
  } catch (error) {
    plan.signal.throwIfAborted();
    throw error;
  } finally {
    plan.signal.removeEventListener("abort", onAbort);
    await vm.stop();
  }
}

/** Looks at what the parent has open, then attaches to its agent. */
async function meet({ deps, request }: Plan, vm: BootedVm): Promise<AgentSession> {
  await deps.disks.admit(vm, `the parent of '${request.tag}'`, [request.image.path]);
  return await attachAgent(vm, firstAttachToken, bootTimeoutMs);
}

async function warmUp(plan: Plan, { vm, session }: Parent): Promise<Warmed> {
  const { request, progress } = plan;
  const started = performance.now();
  const hello = await session.hello.catch((error: unknown) => {
    throw neverBooted(vm, error);
  });
  const bootMs = performance.now() - started;
  progress(`the guest booted in ${Math.round(bootMs)} ms; warming`);
  const detail = await warm(session, {
    env: request.image.env,
    user: request.image.user,
    workdir: request.image.workdir,
    runtime: request.warm.runtime,
    imports: request.warm.imports,
    command: request.warm.command,
    ready: request.warm.ready,
    timeoutMs: request.warm.timeoutMs,
  });
  const warmMs = performance.now() - started - bootMs;
  progress(`warm in ${Math.round(warmMs)} ms (${detail}); freezing`);
  return { hello, detail, bootMs, warmMs };
}

/** Quiets the guest, stops it at one instant and saves its state; the RAM file is its memory. */
async function freezeParent(plan: Plan, { vm, session }: Parent): Promise<number> {
  const started = performance.now();
  const frozen = async (): Promise<void> => {
    await freeze(session, freezeTimeoutMs);
    await vm.pause();
    await vm.saveState(plan.staging.vmstateFile);
  };
  await whileAlive(vm, frozen(), () => guestDied(vm));
  return performance.now() - started;
}

/** SIGBUS is how a VMM learns that its RAM file cannot grow. */
async function guestDied(vm: BootedVm): Promise<ForkdError> {
  const end = await vm.ended;
  if (end.signal === "SIGBUS") {
    return new ForkdError(
      "disk_full",
      "the disk is full: the parent's memory could not be written",
    );
  }
  const words = [end.log, lastWords(vm)].filter((text) => text !== "").join("\n");
  const how = end.signal ?? `exit ${end.exitCode}`;
  return new ForkdError("warmup_failed", `the guest ended before it was warm (${how}): ${words}`);
}

function neverBooted(vm: BootedVm, cause: unknown): ForkdError {
  const message = `the guest did not boot to its agent; its console ends with: ${lastWords(vm)}`;
  return new ForkdError("warmup_timeout", message, {
    hint: "try another guest kernel with --kernel, or install one: forkd kernel install",
    cause,
  });
}

function lastWords(vm: BootedVm): string {
  return vm.consoleTail().trim().split("\n").slice(-consoleLinesMax).join("\n");
}

/** Pages of zeros cost no disk and no page cache. */
async function sparsify(path: string): Promise<void> {
  await run(["fallocate", "--dig-holes", path]);
}

function describe(
  plan: Plan,
  { session }: Parent,
  warmed: Warmed & { readonly freezeMs: number },
): SnapshotFacts {
  const { request, kernel, probe, machine } = plan;
  return {
    engine: { name: probe.engine, version: probe.version, isolation: probe.isolation },
    machine: {
      accel: machine.accel,
      cpu: machine.cpu,
      vcpus: machine.vcpus,
      memory_mib: machine.memoryMib,
      nic: machine.nic,
    },
    kernel: { vmlinuz_sha256: kernel.sha256.vmlinuz, initrd_sha256: kernel.sha256.initrd },
    rootfs: { sha256: request.image.sha256, ref: request.image.ref },
    agent: {
      protocol: 1,
      version: warmed.hello.agent,
      runtime: request.warm.runtime ?? "none",
      attach_token: session.nextToken.toString("hex"),
      generation: warmed.hello.generation,
    },
    bake: {
      boot_ms: warmed.bootMs,
      warm_ms: warmed.warmMs,
      freeze_ms: warmed.freezeMs,
      detail: warmed.detail,
    },
    branch: null,
    scratch: null,
  };
}
