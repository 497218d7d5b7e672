import { rm } from "node:fs/promises";
import { type EngineName, ForkdError, limits } from "@forkd/api";
import type { DataPaths } from "../config/data-paths.ts";
import { type EngineSettings, engineDefaults } from "../config/engine-settings.ts";
import type { Engine } from "../engine/engine.ts";
import { removeLeftovers } from "../image/staging.ts";
import { leftoverFiles } from "../lib/atomic.ts";
import type { Logger } from "../lib/log.ts";
import { findOnPath } from "../lib/programs.ts";
import { identifyProcess, type ProcessIdentity } from "../linux/proc.ts";
import { kernelStagingDir } from "../store/kernels.ts";
import { layout, writtenDirs } from "../store/layout.ts";
import type { Manifest } from "../store/manifest.ts";
import { rootfsStagingDir } from "../store/rootfs.ts";
import { SnapshotStore } from "../store/snapshots.ts";
import { Bakes } from "./bakes.ts";
import { Branches } from "./branches.ts";
import { acquireDaemonLock, type Lock } from "./daemon-lock.ts";
import type { ForkDeps } from "./deps.ts";
import { DiskGuard } from "./disk-guard.ts";
import { EngineVersions } from "./engine-versions.ts";
import { type Engines, onlyEngine, openEngines } from "./engines.ts";
import { EventSource } from "./events.ts";
import { Execs } from "./execs.ts";
import { GuestFiles } from "./files.ts";
import { History } from "./history.ts";
import { HostFit } from "./host-fit.ts";
import { LimitKeeper } from "./limits.ts";
import { lineageOf } from "./lineage.ts";
import { followSandboxLog, sandboxLog } from "./logs.ts";
import { NetKeeper } from "./network.ts";
import { pack, unpack } from "./packs.ts";
import { recover, sweepWorkDirs } from "./recover.ts";
import { Sandboxes } from "./sandboxes.ts";
import type { ForkService } from "./service.ts";
import { StateView } from "./state-view.ts";
import type { OnStep } from "./steps.ts";
import { storageFacts } from "./storage.ts";

export interface ServiceOptions {
  readonly paths: DataPaths;
  /** A daemon owns its data directory alone; command lines may share it with one. */
  readonly owner: "daemon" | "cli";
  readonly log: Logger;
  /** Where to write state.json; null writes none. */
  readonly stateFile: string | null;
  /** Branches at one time. */
  readonly branchConcurrency?: number;
  /** How long a guest may take to prove its identity. */
  readonly identityTimeoutMs?: number;
  /** Which VMMs to use; absent: the best that works. */
  readonly engines?: EngineSettings;
  /** The PATH to look for VMMs on. */
  readonly programPath?: string;
  /** This engine and no other, for tests. */
  readonly engine?: Engine;
  /** Told of every step of the journal, for tests that stop there. */
  readonly onStep?: OnStep;
}

/** A service whose data directory is its own, while it still looks at what it found there. */
export interface Opening {
  /** To be used once that is over, and to be closed in any case. */
  readonly service: ForkService;
  /** Rejects with state_corrupt when a record cannot be read: then nothing is changed. */
  readonly takenOver: Promise<void>;
}

/**
 * Throws data_dir_locked when another daemon owns the directory, state_corrupt when a record cannot
 * be read, permission_denied.
 */
export async function openForkService(options: ServiceOptions): Promise<ForkService> {
  const { service, takenOver } = await beginForkService(options);
  await takenOver;
  return service;
}

/**
 * The same for who has something to do until the sandboxes of an earlier owner are taken over,
 * which takes as long as their VMMs let it wait. Throws data_dir_locked, permission_denied.
 */
export async function beginForkService(options: ServiceOptions): Promise<Opening> {
  const owner = identifyProcess(process.pid);
  if (owner === undefined) throw new ForkdError("internal", "/proc does not know this process");
  const lock = options.owner === "daemon" ? await acquireDaemonLock(options.paths, owner) : null;
  const deps = await openDeps(options, owner, lock);
  const { store } = deps;
  const { stateFile } = options;
  const source = {
    listSnapshots: () => store.list(),
    listSandboxes: () => sandboxes.list(),
  };
  const view = stateFile === null ? null : new StateView(stateFile, source, options.log);
  const changed = (): void => view?.changed();
  const events = new EventSource(watchedBy(options.owner, store), options.log);
  const snapshotsChanged = both(changed, () => events.snapshotsChanged());
  const sandboxes: Sandboxes = new Sandboxes({ deps, changed, onSandbox: events.onSandbox });
  const takenOver = takeOver(deps, sandboxes, events).then(changed);
  takenOver.catch(() => undefined);
  const bakes = new Bakes(deps, events);
  const execs = new Execs(sandboxes);
  const placesMax = options.branchConcurrency ?? limits.concurrentBranchesDefault;
  const branches = new Branches({ deps, sandboxes, placesMax, changed: snapshotsChanged });
  const service: ForkService = {
    listSnapshots: () => store.list(),
    bake: (request, progress) => bakes.run(request, progress).finally(snapshotsChanged),
    importImage: (path) => bakes.importImage(path),
    deleteSnapshot: (tag, mode) => store.remove(tag, mode).finally(snapshotsChanged),
    snapshotInfo: (tag) => store.info(tag),
    compactSnapshot: (from, to) => store.compact(from, to).finally(snapshotsChanged),
    pack: (order) => pack(deps, order),
    unpack: (order) => unpack(deps, order).finally(snapshotsChanged),
    lineage: async () => lineageOf(await store.list(), sandboxes.list()),
    spawn: (request) => sandboxes.spawn(request),
    listSandboxes: () => sandboxes.list(),
    listEndedSandboxes: () => sandboxes.listEnded(),
    load: () => sandboxes.load(),
    storage: () => storageFacts(options.paths),
    limitSupport: () => deps.limits.support(),
    getSandbox: (id) => sandboxes.get(id),
    sandboxLog: (id, lines) => sandboxLog({ deps, sandboxes }, id, lines),
    followLog: (id, asked) => followSandboxLog({ deps, sandboxes }, id, asked),
    kill: (id) => sandboxes.kill(id),
    branch: (id, request) => branches.branch(id, request),
    branchesInFlight: () => branches.inFlight,
    ...guestCalls(sandboxes),
    openExec: (id, request, sink) => execs.open(id, request, sink),
    listExecs: (id) => execs.list(id),
    deleteExec: (id, exec) => execs.forget(id, exec),
    events: events.log,
    files: new GuestFiles((id, work) => sandboxes.call(id, work)),
    close: async (what) => {
      await takenOver.catch(() => undefined);
      await branches.abortAll();
      if (what === "detach") await sandboxes.detachAll();
      else await sandboxes.killAll();
      await bakes.abortAll();
      await deps.limits.close();
      await deps.network.close();
      await view?.settled();
      await lock?.release();
    },
  };
  return { service, takenOver };
}

/** What is remembered of ended sandboxes is a daemon's, who holds the lock. */
async function openDeps(
  options: ServiceOptions,
  owner: ProcessIdentity,
  lock: Lock | null,
): Promise<ForkDeps> {
  const { engines, store } = openStore(options, owner);
  return {
    paths: options.paths,
    engines,
    store,
    limits: new LimitKeeper(options.paths),
    network: new NetKeeper(options.paths, options.log),
    disks: new DiskGuard(),
    log: options.log,
    owner,
    sandboxesOutlive: options.owner === "daemon",
    identityTimeoutMs: options.identityTimeoutMs ?? limits.identityTimeoutDefaultSecs * 1000,
    history: lock === null ? null : await History.open(layout.endedDir(options.paths)),
    onStep: options.onStep ?? (() => undefined),
  };
}

function guestCalls(
  sandboxes: Sandboxes,
): Pick<ForkService, "ping" | "exec" | "eval" | "evalStreamed"> {
  return {
    ping: (id) => sandboxes.ping(id),
    exec: (id, request, signal) => sandboxes.exec(id, request, signal),
    eval: (id, request, signal) => sandboxes.eval(id, request, signal),
    evalStreamed: (id, request, followed) => sandboxes.evalStreamed(id, request, followed),
  };
}

function both(first: () => void, second: () => void): () => void {
  return () => {
    first();
    second();
  };
}

/** Goes on with what an earlier owner of the data directory left, and removes its leftovers. */
async function takeOver(deps: ForkDeps, sandboxes: Sandboxes, events: EventSource): Promise<void> {
  await (deps.sandboxesOutlive ? recover(deps, sandboxes) : sweepWorkDirs(deps));
  await sweep(deps);
  await deps.network.resume(sandboxes.list()).catch((cause: unknown) => {
    // What is not served names runs all the same.
    deps.log.warn("sandboxes are not served names", { cause });
  });
  await events.start(sandboxes.list());
}

/** The store, whose lists tell which snapshots the engines cannot run. */
function openStore(
  options: ServiceOptions,
  owner: ProcessIdentity,
): { engines: Engines; store: SnapshotStore } {
  const engines = enginesOf(options);
  const fit = new HostFit(engines, options.engine === undefined ? versionsOf(options) : null);
  const unfit = (manifest: Manifest): Promise<string | undefined> => fit.unfit(manifest);
  return { engines, store: new SnapshotStore(options.paths, owner, { unfit }) };
}

/** A command line is asked for no events: it need not look at every snapshot for them. */
function watchedBy(owner: ServiceOptions["owner"], store: SnapshotStore) {
  return owner === "daemon" ? () => store.list() : async () => [];
}

/** Whether Firecracker is usable depends on more than its file: only QEMU's answer is kept. */
function versionsOf({ paths, programPath = "" }: ServiceOptions): EngineVersions {
  const { cacheDir } = paths;
  const programOf = async (name: EngineName): Promise<string | undefined> =>
    name === "qemu" ? await findOnPath("qemu-system-x86_64", programPath) : undefined;
  return new EngineVersions({ cacheDir, programOf });
}

function enginesOf({
  engine,
  engines = engineDefaults,
  paths,
  programPath,
}: ServiceOptions): Engines {
  return engine === undefined ? openEngines(paths, engines, programPath) : onlyEngine(engine);
}

/** Removes what processes that are gone have left: half snapshots, half images. */
async function sweep({ paths, store, limits: groups }: ForkDeps): Promise<void> {
  await store.sweep();
  await groups.sweep();
  await removeLeftovers(rootfsStagingDir(paths));
  await removeLeftovers(kernelStagingDir(paths));
  await removeLeftovers(layout.pushesDir(paths));
  for (const dir of writtenDirs(paths)) {
    for (const path of await leftoverFiles(dir)) await rm(path, { force: true });
  }
}
