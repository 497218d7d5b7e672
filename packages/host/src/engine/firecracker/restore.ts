import { ForkdError } from "@forkd/api";
import { boundedSignal, orAborted } from "../../lib/deadline.ts";
import {
  type ChildScratch,
  type MemoryImage,
  type RestoredVm,
  type RestoreSpec,
  restoreMaxMs,
} from "../engine.ts";
import { type Card, cardOf, cardOverrides } from "./card.ts";
import type { RequestBody } from "./contract.ts";
import { requireCpu } from "./cpu.ts";
import { type OwnFile, vmFiles } from "./files.ts";
import type { FirecrackerHost } from "./host.ts";
import { answered, launch } from "./launch.ts";
import { FirecrackerVm } from "./vm.ts";

/** Starts a VMM that maps the memory image privately, and loads the state into it. */
export async function restoreFirecracker(
  host: FirecrackerHost,
  spec: RestoreSpec,
): Promise<RestoredVm> {
  using bound = boundedSignal(spec.signal, { ms: restoreMaxMs, late: tooLate });
  return await restore(host, spec, bound.signal);
}

function tooLate(): ForkdError {
  return new ForkdError("deadline_exceeded", `a restore took longer than ${restoreMaxMs} ms`, {
    hint: "its disk or the image of its chain may be copied to slow storage (docs/disks.md); try again",
  });
}

async function restore(
  host: FirecrackerHost,
  spec: RestoreSpec,
  signal: AbortSignal,
): Promise<RestoredVm> {
  requireCpu(spec.machine.cpu);
  const disk = diskOf(spec.scratch);
  // Firecracker is static, so no library of ours can lay an overlay over the base.
  const memory = await orAborted(wholeOf(host, spec.memory), signal);
  const card = await cardOf(spec.machine, spec.network);
  const started = performance.now();
  const { process, api, journal } = await launch(host, {
    workDir: spec.workDir,
    memoryMib: spec.machine.memoryMib,
    dieWithParent: spec.dieWithParent,
    cgroups: spec.cgroups,
    card,
    stdout: "nowhere",
    files: [{ file: spec.rootImage, name: vmFiles.root }],
    // What is not frozen in the state is named by its own path, where that can be seen.
    jailFiles: [
      { file: memory, name: vmFiles.memory },
      { file: spec.vmstateFile, name: vmFiles.vmstate },
    ],
    disk,
    signal,
  });
  const processMs = performance.now() - started;
  const jailed = journal.note.user !== null;
  const body = loadBody(host, {
    vmstate: jailed ? vmFiles.vmstate : spec.vmstateFile,
    memory: jailed ? vmFiles.memory : memory,
    card,
  });
  const load = api.call("loadSnapshot", body, { timeoutMs: host.timeouts.loadMs });
  await answered(process, orAborted(load, signal), "restore").catch((error: unknown) => {
    api.close();
    throw error instanceof ForkdError ? explain(error) : error;
  });
  process.unref();
  return new FirecrackerVm({
    host,
    process,
    api,
    journal,
    timings: { processMs, restoredMs: performance.now() - started },
    consoleTail: () => "",
    booted: null,
    running: false,
    fresh: true,
  });
}

/** All children of an image share the file, so it is made even if this one is given up. */
async function wholeOf(host: FirecrackerHost, image: MemoryImage): Promise<string> {
  return image.overlay === null ? image.base : await host.flatten(image);
}

/** Its disks are raw files, which cannot be layers over each other: each child gets a copy. */
function diskOf(scratch: ChildScratch | null): OwnFile | null {
  if (scratch === null) return null;
  if (scratch.kind === "file") return { file: scratch.frozen, name: vmFiles.scratch, by: "copy" };
  throw new ForkdError("engine_failed", "scratch disks of Firecracker are files, not layers");
}

/**
 * The VM stays paused. `clock_realtime` is left out: the agent is given the time with its identity,
 * and a guest whose monotonic clock jumps by a day of frost runs all timers of that day at once.
 */
export function loadBody(
  { capabilities }: FirecrackerHost,
  from: { readonly vmstate: string; readonly memory: string; readonly card: Card | null },
): RequestBody<"loadSnapshot"> {
  return {
    snapshot_path: from.vmstate,
    mem_backend: { backend_type: "File", backend_path: from.memory },
    ...(capabilities.trackDirtyPages
      ? { track_dirty_pages: true }
      : { enable_diff_snapshots: true }),
    resume_vm: false,
    ...cardOverrides(from.card, capabilities),
    ...(capabilities.vsockOverride && { vsock_override: { uds_path: vmFiles.vsock } }),
  };
}

function explain(error: ForkdError): ForkdError {
  if (error.code !== "engine_failed") return error;
  return new ForkdError(error.code, error.message, {
    hint: "the snapshot may be of another Firecracker or another CPU; bake it again",
    cause: error,
  });
}
