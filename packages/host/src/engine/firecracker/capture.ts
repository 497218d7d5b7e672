import { lstat, open, rm } from "node:fs/promises";
import { join } from "node:path";
import { ForkdError } from "@forkd/api";
import { type BoundedSignal, boundedSignal } from "../../lib/deadline.ts";
import { run } from "../../lib/exec.ts";
import { nativeTool } from "../../lib/native.ts";
import type { CaptureResult, CaptureSpec, DiskCopy } from "../engine.ts";
import type { VmProcess } from "../process.ts";
import { FirecrackerApi } from "./api.ts";
import { copyOpened } from "./copy.ts";
import { canDiff } from "./epoch.ts";
import {
  copyDisk,
  copyPlain,
  flushDisk,
  openSized,
  removeNames,
  takeState,
  vmFiles,
} from "./files.ts";
import type { FirecrackerHost } from "./host.ts";
import type { VmJournal } from "./journal.ts";
import { sendReset, takeDiff, takeFull } from "./save.ts";
import { requireDiffs } from "./version.ts";

const extentsTimeoutMs = 120_000;

interface CaptureTarget {
  readonly host: FirecrackerHost;
  readonly process: VmProcess;
  readonly api: FirecrackerApi;
  readonly journal: VmJournal;
  /** Called before the guest runs again, whose connections are gone then; does not throw. */
  readonly onReset: () => Promise<void>;
  /** The guest runs again. */
  readonly onResumed: () => void;
}

/** See Vm.capture for what holds when it throws. */
export async function captureFirecracker(
  target: CaptureTarget,
  spec: CaptureSpec,
): Promise<CaptureResult> {
  await requirePossible(target, spec);
  const { journal } = target;
  try {
    await flushDisks(target, spec);
    const stand = await standStill(target, spec);
    const whole = !canDiff(journal.epoch);
    await takeState(join(journal.dir, vmFiles.saved), spec.files.vmstate);
    await writePages(target, spec, whole);
    if (spec.durable) await syncFiles(spec);
    const { extents, bytes } = await writeExtents(spec, whole);
    return {
      ...stand,
      rounds: 1,
      dirtyBytes: stand.writtenBytes,
      copiedBytes: stand.writtenBytes,
      pagesBytes: bytes,
      extents,
    };
  } catch (error) {
    await removeFiles(spec);
    spec.signal?.throwIfAborted();
    throw error;
  } finally {
    await removeNames(journal.dir, [vmFiles.saved, vmFiles.full]);
  }
}

/** Throws before anything was touched. */
async function requirePossible({ host, journal }: CaptureTarget, spec: CaptureSpec): Promise<void> {
  spec.signal?.throwIfAborted();
  requireDiffs(host.version, journal.note.memory_mib);
  if (spec.mode === "live") {
    throw new ForkdError("live_unsupported", "Firecracker cannot copy a guest while it runs", {
      hint: "branch with mode diff",
    });
  }
  for (const path of filesOf(spec)) {
    if (await exists(path)) throw new ForkdError("engine_failed", `${path} exists already`);
  }
}

async function exists(path: string): Promise<boolean> {
  return await lstat(path).then(
    () => true,
    () => false,
  );
}

interface Stand {
  readonly pauseMs: number;
  readonly heldMs: number;
  readonly writtenBytes: number;
}

/** Pauses the VM, has it written down, and lets it go on, whatever happens. */
async function standStill(target: CaptureTarget, spec: CaptureSpec): Promise<Stand> {
  const { host, api, journal } = target;
  let pausedAt = 0;
  let resumedAt = 0;
  let heldAt = 0;
  let isSaved = false;
  try {
    await spec.beforeStop();
    heldAt = performance.now();
    spec.signal?.throwIfAborted();
    pausedAt = performance.now();
    try {
      await api.call("vm", { state: "Paused" });
      const save = { api, journal, timeoutMs: host.timeouts.snapshotMs };
      if (canDiff(journal.epoch)) await takeDiff(save);
      else await takeFull(save);
      isSaved = true;
      await copyDisks(target, spec, pausedAt);
    } finally {
      await letGoOn(target, isSaved);
      resumedAt = performance.now();
    }
  } catch (error) {
    // The first failure is the better reason than what follows from it.
    await spec.afterResume().catch(() => undefined);
    throw error;
  }
  await spec.afterResume();
  const pauseMs = resumedAt - pausedAt;
  requireBudget(pauseMs, spec);
  const file = canDiff(journal.epoch) ? vmFiles.pages : vmFiles.full;
  const { blocks } = await lstat(join(journal.dir, file));
  return { pauseMs, heldMs: resumedAt - heldAt, writtenBytes: blocks * 512 };
}

/**
 * On a connection of its own: the first may wait for an answer that does not come. A VM that does
 * not go on is ended: one that stays paused would be worse than none.
 */
async function letGoOn(target: CaptureTarget, isSaved: boolean): Promise<void> {
  const { host, journal, process } = target;
  const timeoutMs = host.timeouts.resumeMs;
  const api = new FirecrackerApi(join(journal.dir, vmFiles.api), timeoutMs);
  try {
    if (!isSaved) await sendReset({ api, journal, timeoutMs });
    // Before the guest runs: it would end the channel itself, as if it had broken.
    await target.onReset();
    await api.call("vm", { state: "Resumed" });
    target.onResumed();
  } catch {
    await process.stop();
  } finally {
    api.close();
  }
}

/**
 * Firecracker syncs each disk in a snapshot (1.16.1: VirtioBlock::prepare_save), whatever cache it
 * was told of. What is written down while the guest runs need not be in the pause.
 */
async function flushDisks({ journal }: CaptureTarget, spec: CaptureSpec): Promise<void> {
  const from = join(journal.dir, vmFiles.scratch);
  for (const { bytes } of copiesOf(spec)) await flushDisk({ from, bytes, signal: spec.signal });
}

/**
 * After the snapshot, not before: what the guest has asked of its disk when it is paused may be
 * done until the snapshot begins, and then the saved RAM says that it is done. What is done after
 * it, the saved RAM still asks for, and a fork does it again: the same bytes in the same place.
 */
async function copyDisks(
  { journal }: CaptureTarget,
  spec: CaptureSpec,
  pausedAt: number,
): Promise<void> {
  const from = join(journal.dir, vmFiles.scratch);
  using budget = pauseBudget(spec, pausedAt);
  for (const { to, bytes } of copiesOf(spec)) {
    await copyDisk({ from, bytes, signal: budget.signal }, to);
  }
}

/** Throws engine_failed for a disk whose writes are to go elsewhere: ours have nowhere else. */
function copiesOf({ disks }: CaptureSpec): readonly DiskCopy[] {
  return disks.map((disk) => {
    if (disk.kind === "copy") return disk;
    throw new ForkdError("engine_failed", "a scratch disk of Firecracker is captured by a copy");
  });
}

/** Aborts with the caller's signal, or when the guest has stood for as long as it may. */
function pauseBudget({ signal, maxPauseMs }: CaptureSpec, pausedAt: number): BoundedSignal {
  const stoodMs = (): number => performance.now() - pausedAt;
  return boundedSignal(signal, {
    ms: maxPauseMs === null ? null : maxPauseMs - stoodMs(),
    late: () => tooLong(stoodMs(), maxPauseMs ?? 0),
  });
}

/** Firecracker cannot give up a snapshot: a pause that was too long is refused after it. */
function requireBudget(pauseMs: number, { maxPauseMs }: CaptureSpec): void {
  if (maxPauseMs === null || pauseMs <= maxPauseMs) return;
  throw tooLong(pauseMs, maxPauseMs);
}

function tooLong(pauseMs: number, maxPauseMs: number): ForkdError {
  const message = `the guest stood for ${Math.round(pauseMs)} ms, more than ${maxPauseMs} ms`;
  return new ForkdError("branch_budget_exceeded", message);
}

/** The pages of the capture: of a whole RAM as it is, or the changes, or those over the image. */
async function writePages(
  { host, journal }: CaptureTarget,
  spec: CaptureSpec,
  whole: boolean,
): Promise<void> {
  const from = join(journal.dir, whole ? vmFiles.full : vmFiles.pages);
  // The guest runs again, and whoever broke out of it may put anything under that name.
  await using written = await openSized(from, journal.note.memory_mib * 1024 * 1024);
  const { pages } = spec.files;
  const { signal } = spec;
  if (whole || !spec.all) return await copyOpened(written, pages, { signal });
  await copyPlain(await host.flatten(spec.image), pages, { signal });
  // It follows no link either; by the name, since a descriptor of ours is one.
  const lay = [nativeTool("forkd-sparse"), "lay", from, pages];
  await run(lay, { timeoutMs: extentsTimeoutMs, ...(signal && { signal }) });
}

/** A whole RAM lies over all of the image, zeros too. */
async function writeExtents(
  { files, all }: CaptureSpec,
  whole: boolean,
): Promise<{ extents: number; bytes: number }> {
  const form = whole && !all ? "whole" : "data";
  const argv = [nativeTool("forkd-sparse"), form, files.pages, files.extents];
  const { stdout } = await run(argv, { timeoutMs: extentsTimeoutMs });
  const [extents, bytes] = stdout.trim().split(" ").map(Number);
  if (extents !== undefined && bytes !== undefined) return { extents, bytes };
  throw new ForkdError("engine_failed", "forkd-sparse did not say what it found");
}

async function syncFiles(spec: CaptureSpec): Promise<void> {
  const { vmstate, pages } = spec.files;
  for (const path of [vmstate, pages, ...copiesOf(spec).map(({ to }) => to)]) {
    await using handle = await open(path, "r");
    await handle.sync();
  }
}

/** All that a capture makes. */
function filesOf(spec: CaptureSpec): string[] {
  const { vmstate, pages, extents } = spec.files;
  return [vmstate, pages, extents, ...copiesOf(spec).map(({ to }) => to)];
}

async function removeFiles(spec: CaptureSpec): Promise<void> {
  await Promise.all(filesOf(spec).map((path) => rm(path, { force: true })));
}
