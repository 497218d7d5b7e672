import { rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { type ErrorCode, ForkdError } from "@forkd/api";
import { withDeadline } from "../../lib/deadline.ts";
import type { CaptureResult, CaptureSpec, DiskPivot } from "../engine.ts";
import type { VmProcess } from "../process.ts";
import { captureSocketName } from "./argv.ts";
import { type CaptureEvent, CaptureProcess } from "./capture-process.ts";
import { openMonitor } from "./monitor.ts";
import { Qmp } from "./qmp.ts";
import { topNodes } from "./scratch-disk.ts";

/** Copying and making durable some hundreds of MiB takes seconds, a full and slow disk more. */
const captureTimeoutMs = 10 * 60_000;
/** A monitor that its last client left greets the next one at once. */
const recoverTimeoutMs = 15_000;

type Ready = Extract<CaptureEvent, { event: "ready" }>;
type Resumed = Extract<CaptureEvent, { event: "resumed" }>;
type Done = Extract<CaptureEvent, { event: "done" }>;

interface CaptureTarget {
  readonly process: VmProcess;
  readonly workDir: string;
}

/** Runs one capture, see Vm.capture for what holds when it throws. */
export async function captureQemu(
  target: CaptureTarget,
  spec: CaptureSpec,
): Promise<CaptureResult> {
  spec.signal?.throwIfAborted();
  const program = new CaptureProcess(await captureArgs(target, spec), target.workDir);
  const end = (): void => program.end();
  const timer = setTimeout(end, captureTimeoutMs);
  spec.signal?.addEventListener("abort", end, { once: true });
  const run = new CaptureRun(program, spec);
  try {
    return await run.finish();
  } catch (error) {
    program.end();
    await program.exited();
    if (run.mustAsk) await recover(target, spec);
    if (!run.cleanedUp) await removeFiles(spec);
    // The first failure is the better reason than what followed from it.
    await run.release().catch(() => undefined);
    spec.signal?.throwIfAborted();
    throw error;
  } finally {
    clearTimeout(timer);
    spec.signal?.removeEventListener("abort", end);
  }
}

/** Follows the program's events and calls the owner back at each. */
class CaptureRun {
  readonly #program: CaptureProcess;
  readonly #spec: CaptureSpec;
  #resumed: Resumed | undefined;
  #done: Done | undefined;
  #held = false;
  #toldToStop = false;
  /** Whether the VM surely runs, or was never stopped. */
  #knownToRun = true;
  /** Whether the program itself has removed its files. */
  cleanedUp = false;

  constructor(program: CaptureProcess, spec: CaptureSpec) {
    this.#program = program;
    this.#spec = spec;
  }

  async finish(): Promise<CaptureResult> {
    for await (const event of this.#program.events()) await this.#take(event);
    const how = await this.#program.exited();
    if (this.#done === undefined || this.#resumed === undefined) {
      throw new ForkdError("engine_failed", `forkd-capture ended: ${how}`);
    }
    return resultOf(this.#resumed, this.#done);
  }

  /**
   * Whether only the VMM knows how it was left. A disk may have moved even if nobody heard of it:
   * its command was on its way when the capture was given up.
   */
  get mustAsk(): boolean {
    return this.#toldToStop && (!this.#knownToRun || this.#spec.disks.length > 0);
  }

  /** Tells the owner, once, that what it holds may go on. */
  async release(): Promise<void> {
    if (!this.#held) return;
    this.#held = false;
    await this.#spec.afterResume();
  }

  async #take(event: CaptureEvent): Promise<void> {
    if (event.event === "ready") await this.#stop(event);
    else if (event.event === "resumed") await this.#resume(event);
    else if (event.event === "done") this.#done = event;
    else {
      this.#knownToRun = event.running;
      this.cleanedUp = true;
      throw failureOf(event.code, event.message);
    }
  }

  async #stop(_event: Ready): Promise<void> {
    this.#held = true;
    await this.#spec.beforeStop();
    this.#toldToStop = true;
    this.#knownToRun = false;
    this.#program.go();
  }

  async #resume(event: Resumed): Promise<void> {
    this.#knownToRun = true;
    this.#resumed = event;
    if (this.#spec.disks.length > 0) this.#spec.onPivot();
    await this.release();
  }
}

function resultOf(resumed: Resumed, done: Done): CaptureResult {
  return {
    pauseMs: resumed.pause_us / 1000,
    heldMs: resumed.held_us / 1000,
    rounds: done.rounds,
    dirtyBytes: done.dirty_bytes,
    copiedBytes: done.copied_bytes,
    pagesBytes: done.bytes,
    extents: done.extents,
  };
}

/** The codes of native/capture/capture.h that are no failure of the engine. */
const codes: Readonly<Record<string, ErrorCode>> = {
  budget_exceeded: "branch_budget_exceeded",
  live_unsupported: "live_unsupported",
  disk_full: "disk_full",
};

function failureOf(code: string, message: string): ForkdError {
  return new ForkdError(codes[code] ?? "engine_failed", message);
}

async function captureArgs(
  { process }: CaptureTarget,
  spec: CaptureSpec,
): Promise<readonly string[]> {
  const { image, files } = spec;
  const ramBytes = (await stat(image.base)).size;
  const flag = (name: string, on: boolean): string[] => (on ? [name] : []);
  const overlay =
    image.overlay === null
      ? []
      : ["--overlay", image.overlay.file, "--overlay-extents", image.overlay.extents];
  return [
    ...["--pid", String(process.identity.pid)],
    ...["--start-ticks", String(process.identity.startTicks)],
    ...["--monitor", captureSocketName, "--ram-size", String(ramBytes)],
    ...["--mode", spec.mode, ...flag("--all", spec.all), ...flag("--no-sync", !spec.durable)],
    ...["--vmstate", files.vmstate, "--pages", files.pages, "--extents", files.extents],
    ...["--base", image.base, ...overlay],
    ...(spec.maxPauseMs === null ? [] : ["--max-pause-ms", String(Math.ceil(spec.maxPauseMs))]),
    ...pivotsOf(spec).flatMap(({ node, overlay }) => {
      return ["--qmp-pivot", JSON.stringify(snapshotCommand(node, overlay))];
    }),
  ];
}

/** Throws engine_failed for a disk that is to be copied, which ours are not. */
function pivotsOf({ disks }: CaptureSpec): readonly DiskPivot[] {
  return disks.map((disk) => {
    if (disk.kind === "pivot") return disk;
    throw new ForkdError("engine_failed", "a scratch disk of QEMU is captured by its layers");
  });
}

function snapshotCommand(node: string, overlay: string): object {
  return { execute: "blockdev-snapshot", arguments: { node, overlay } };
}

/**
 * Makes a VM run whose capture failed, and finds out where its disks write. QEMU runs one command
 * after the other and drops what a client left behind: once it serves this one, no `stop` and no
 * pivot of the last one comes after the `cont`.
 */
async function recover({ process, workDir }: CaptureTarget, spec: CaptureSpec): Promise<void> {
  try {
    const qmp = new Qmp(await openMonitor(join(workDir, captureSocketName)));
    const nodes = withDeadline(resumeAndAsk(qmp), recoverTimeoutMs, "resuming the VM");
    const tops = await nodes.finally(() => qmp.close());
    if (pivotsOf(spec).some(({ overlay }) => tops.includes(overlay))) spec.onPivot();
  } catch {
    // It does not answer: dead or about to be. A VM that stays paused would be worse than none.
    await process.stop();
  }
}

async function resumeAndAsk(qmp: Qmp): Promise<readonly string[]> {
  await qmp.execute("qmp_capabilities");
  await qmp.execute("cont");
  return topNodes(qmp);
}

async function removeFiles({ files }: CaptureSpec): Promise<void> {
  const paths = [files.vmstate, files.pages, files.extents];
  await Promise.all(paths.map((path) => rm(path, { force: true })));
}
