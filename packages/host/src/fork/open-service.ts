import { ForkdError } from "@forkd/api";
import type { DataPaths } from "../config/data-paths.ts";
import { QemuEngine } from "../engine/qemu/engine.ts";
import { removeLeftovers } from "../image/staging.ts";
import type { Logger } from "../lib/log.ts";
import { identifyProcess, isAlive } from "../linux/proc.ts";
import { kernelStagingDir } from "../store/kernels.ts";
import { rootfsStagingDir } from "../store/rootfs.ts";
import { SnapshotStore } from "../store/snapshots.ts";
import { Bakes } from "./bakes.ts";
import { acquireDaemonLock } from "./daemon-lock.ts";
import type { ForkDeps } from "./deps.ts";
import { LimitKeeper } from "./limits.ts";
import { readRecord } from "./record.ts";
import { Sandboxes } from "./sandboxes.ts";
import type { ForkService } from "./service.ts";
import { StateView } from "./state-view.ts";
import { orphanedWorkDirs, reapWorkDir } from "./work-dir.ts";

export interface ServiceOptions {
  readonly paths: DataPaths;
  /** A daemon owns its data directory alone; command lines may share it with one. */
  readonly owner: "daemon" | "cli";
  readonly log: Logger;
  /** Where to write state.json; null writes none. */
  readonly stateFile: string | null;
}

/** Throws data_dir_locked when another daemon owns the directory, permission_denied. */
export async function openForkService(options: ServiceOptions): Promise<ForkService> {
  const owner = identifyProcess(process.pid);
  if (owner === undefined) throw new ForkdError("internal", "/proc does not know this process");
  const lock = options.owner === "daemon" ? await acquireDaemonLock(options.paths, owner) : null;
  const store = new SnapshotStore(options.paths, owner);
  const deps: ForkDeps = {
    paths: options.paths,
    engine: new QemuEngine(options.paths.cacheDir),
    store,
    limits: new LimitKeeper(options.paths),
    log: options.log,
    owner,
    sandboxesOutlive: options.owner === "daemon",
  };
  const { stateFile } = options;
  const source = {
    listSnapshots: () => store.list(),
    listSandboxes: () => sandboxes.list(),
  };
  const view = stateFile === null ? null : new StateView(stateFile, source, options.log);
  const changed = (): void => view?.changed();
  const sandboxes: Sandboxes = new Sandboxes(deps, changed);
  if (deps.sandboxesOutlive) await sandboxes.adoptAll();
  await sweep(deps);
  const bakes = new Bakes(deps);
  changed();
  return {
    listSnapshots: () => store.list(),
    bake: (request, progress) => bakes.run(request, progress).finally(changed),
    importImage: (path) => bakes.importImage(path),
    deleteSnapshot: (tag) => store.remove(tag).finally(changed),
    spawn: (request) => sandboxes.spawn(request),
    listSandboxes: () => sandboxes.list(),
    limitSupport: () => deps.limits.support(),
    getSandbox: (id) => sandboxes.get(id),
    kill: (id) => sandboxes.kill(id),
    branch: async () => {
      throw new ForkdError("engine_failed", "this engine cannot branch yet");
    },
    ping: (id) => sandboxes.ping(id),
    exec: (id, request, signal) => sandboxes.exec(id, request, signal),
    eval: (id, request, signal) => sandboxes.eval(id, request, signal),
    close: async (what) => {
      if (what === "detach") await sandboxes.detachAll();
      else await sandboxes.killAll();
      await bakes.abortAll();
      await deps.limits.close();
      await view?.settled();
      await lock?.release();
    },
  };
}

/** Removes what processes that are gone have left: work, half snapshots, half images. */
async function sweep({ paths, store, log, owner }: ForkDeps): Promise<void> {
  for (const dir of await orphanedWorkDirs(paths)) {
    // A daemon's sandbox waits for the next daemon; a command line must not end it.
    const record = await readRecord(dir);
    if (record === undefined || !isAlive(record.process)) await reapWorkDir(dir, { owner, log });
  }
  await store.sweep();
  await removeLeftovers(rootfsStagingDir(paths));
  await removeLeftovers(kernelStagingDir(paths));
}
