import { join } from "node:path";
import { parseSandboxId, type SandboxId } from "@forkd/api";
import { resolveDataPaths } from "@forkd/host/config/data-paths.ts";
import { resolveEngineSettings } from "@forkd/host/config/engine-settings.ts";
import { QemuEngine } from "@forkd/host/engine/qemu/engine.ts";
import { AgentLink } from "@forkd/host/fork/agent-link.ts";
import { type Child, StartFailure } from "@forkd/host/fork/child.ts";
import type { ForkDeps } from "@forkd/host/fork/deps.ts";
import { DiskGuard } from "@forkd/host/fork/disk-guard.ts";
import { onlyEngine } from "@forkd/host/fork/engines.ts";
import { History } from "@forkd/host/fork/history.ts";
import { Journal } from "@forkd/host/fork/journal.ts";
import type { StateBounds } from "@forkd/host/fork/lifecycle.ts";
import { LimitKeeper } from "@forkd/host/fork/limits.ts";
import { NetKeeper } from "@forkd/host/fork/network.ts";
import { renderRecord } from "@forkd/host/fork/record.ts";
import type { Sandbox } from "@forkd/host/fork/sandbox.ts";
import { Sandboxes } from "@forkd/host/fork/sandboxes.ts";
import type { JournalStep } from "@forkd/host/fork/steps.ts";
import { createWorkDir } from "@forkd/host/fork/work-dir.ts";
import { silentLogger } from "@forkd/host/lib/log.ts";
import { identifyProcess } from "@forkd/host/linux/proc.ts";
import { SnapshotStore } from "@forkd/host/store/snapshots.ts";
import { FakeVm } from "./fake-vm.ts";
import { sampleRecord } from "./sample-record.ts";

/** A sandbox whose VM and whose start are the test's. */
export interface BenchSandbox {
  readonly id: SandboxId;
  readonly sandbox: Sandbox;
  readonly vm: FakeVm;
  /** Lets the start succeed. */
  readonly open: () => void;
  /** Lets it fail. */
  readonly fail: (failure: StartFailure) => void;
}

/** The real sandboxes of a data directory, above machines that are none. */
export interface ForkBench {
  readonly deps: ForkDeps;
  readonly sandboxes: Sandboxes;
  readonly steps: JournalStep[];
  /** `obeys: false` starts one that ignores that it is to stop. */
  begin(options?: { readonly obeys?: boolean }): Promise<BenchSandbox>;
}

let count = 0;

export async function openBench(dir: string, boundsMs?: StateBounds): Promise<ForkBench> {
  const paths = resolveDataPaths({ FORKD_DATA_DIR: dir }, 0);
  const { kvmTrialMs } = resolveEngineSettings(process.env);
  const owner = identifyProcess(process.pid);
  if (owner === undefined) throw new Error("/proc does not know this process");
  const steps: JournalStep[] = [];
  const deps: ForkDeps = {
    paths,
    owner,
    engines: onlyEngine(new QemuEngine({ cacheDir: paths.cacheDir, kvmTrialMs })),
    store: new SnapshotStore(paths, owner),
    limits: new LimitKeeper(paths),
    network: new NetKeeper(paths, silentLogger),
    disks: new DiskGuard(),
    log: silentLogger,
    sandboxesOutlive: true,
    identityTimeoutMs: 1_000,
    history: await History.open(join(dir, "ended")),
    onStep: (step) => void steps.push(step),
  };
  const sandboxes = new Sandboxes({
    deps,
    changed: () => undefined,
    ...(boundsMs !== undefined && { boundsMs }),
  });
  return { deps, sandboxes, steps, begin: (options) => begin(deps, sandboxes, options) };
}

async function begin(
  deps: ForkDeps,
  sandboxes: Sandboxes,
  { obeys = true }: { readonly obeys?: boolean } = {},
): Promise<BenchSandbox> {
  count += 1;
  const id = parseSandboxId(`sb-6553f100-${count}`);
  const journal = await openJournal(deps, id);
  const vm = new FakeVm();
  const started = Promise.withResolvers<Child>();
  const sandbox = sandboxes.adopt(journal, async (_, { signal, holdVm }) => {
    holdVm(vm);
    const giveUp = (): void => started.reject(signal.reason);
    if (obeys) signal.addEventListener("abort", giveUp);
    // As a fork does, whose channel breaks with its VMM.
    void vm.ended.then(() => started.reject(new StartFailure("identity_failed", "it is gone")));
    return await started.promise;
  });
  const agent = new AgentLink({ vm, journal, onStep: deps.onStep, session: null });
  return {
    id,
    sandbox,
    vm,
    open: () => started.resolve({ vm, journal, agent }),
    fail: (failure) => started.reject(failure),
  };
}

async function openJournal({ paths, owner, onStep }: ForkDeps, id: SandboxId): Promise<Journal> {
  const record = sampleRecord(id, { phase: "starting", bootId: owner.bootId });
  const files = { "sandbox.json": renderRecord(record) };
  const workDir = await createWorkDir(paths, { name: id, owner, files });
  return new Journal(workDir, record, onStep);
}
