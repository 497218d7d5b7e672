import { join } from "node:path";
import {
  ForkdError,
  parseSnapshotTag,
  type SandboxId,
  type SandboxInfo,
  type SnapshotInfo,
  toForkdError,
} from "@forkd/api";
import { setClock } from "../agent/guest.ts";
import { hold, requireHeld, thaw } from "../agent/hold.ts";
import type { AgentSession } from "../agent/session.ts";
import type { CaptureResult } from "../engine/engine.ts";
import { ChannelReset } from "../lib/channel-reset.ts";
import { snapshotFiles } from "../store/layout.ts";
import type { Reservation, Snapshot, SnapshotFacts, SnapshotStaging } from "../store/snapshots.ts";
import { DiskTurn } from "./branch-disk.ts";
import type { BranchOptions } from "./branch-options.ts";
import type { Child } from "./child.ts";
import type { ForkDeps } from "./deps.ts";
import type { BranchScope } from "./sandbox.ts";
import { describeLayers, keepLayers } from "./scratch.ts";

/** A hold outlasts the longest pause by this, so that forks begin held: see requireHeld. */
const holdBeyondPauseMs = 20_000;
const clockTimeoutMs = 5_000;

export interface BranchOrder {
  readonly deps: ForkDeps;
  readonly id: SandboxId;
  readonly child: Child;
  readonly scope: BranchScope;
  readonly options: BranchOptions;
  readonly parent: Snapshot;
  readonly reservation: Reservation;
}

/**
 * Writes a running child down at one instant and publishes that. Its guest is held meanwhile, so
 * that in a fork of the snapshot nothing runs before the fork is one of its kind.
 */
export async function branchChild(order: BranchOrder): Promise<SnapshotInfo> {
  const { deps, child, scope, options, parent, reservation } = order;
  const began = performance.now();
  const session = await child.agent.session();
  const staging =
    options.mode === "full"
      ? await reservation.stageFlat(parent)
      : await reservation.stageLink(parent);
  deps.onStep("branch_staged");
  const disk = await DiskTurn.begin({ ...order, dir: staging.dir });
  const captured = await captureAndSettle(order, { session, staging, disk });
  await keepLayers(disk.frozen, staging.dir);
  deps.onStep("branch_captured");
  const diffMs = performance.now() - began;
  const scratch = await describeLayers({
    dir: staging.dir,
    layers: disk.frozen,
    sizeMib: parent.scratch?.sizeMib ?? null,
  });
  // From here on it is published, whatever becomes of the sandbox.
  scope.signal.throwIfAborted();
  const info = await staging.publish(factsOf(order, { session, captured, diffMs, scratch }));
  deps.onStep("branch_published");
  await noteBranch(order, info);
  return info;
}

/** A sandbox that ended meanwhile takes no note, which is no reason to call its branch failed. */
async function noteBranch(
  { deps, id, child, scope, options }: BranchOrder,
  { dir }: SnapshotInfo,
): Promise<void> {
  const note = {
    has_branched: true,
    last_branch_memory_path: join(dir, memoryNameOf(options)),
    branch_count: child.journal.record.info.branch_count + 1,
  };
  await scope.update(note).catch((error: unknown) => {
    deps.log.warn("a sandbox does not know that it was branched", { id, error });
  });
}

function memoryNameOf({ mode }: BranchOptions): string {
  return mode === "full" ? snapshotFiles.memory : snapshotFiles.diff;
}

/** Throws snapshot_incomplete when the tag is gone, or has been given to another snapshot. */
export async function openParent({ store }: ForkDeps, child: Child): Promise<Snapshot> {
  const { info, snapshotSha256 } = child.journal.record;
  const tag = parseSnapshotTag(info.snapshot_tag);
  const parent = await store.open(tag).catch((error: unknown) => {
    const problem = toForkdError(error);
    throw problem.code === "snapshot_not_found" ? withoutParent(info, "has been removed") : problem;
  });
  if (parent.manifestSha256 === snapshotSha256) return parent;
  throw withoutParent(info, "has been made anew");
}

function withoutParent(info: SandboxInfo, what: string): ForkdError {
  const message = `the snapshot '${info.snapshot_tag}' that ${info.id} was forked from ${what}`;
  return new ForkdError("snapshot_incomplete", message, {
    hint: "the sandbox runs on, but cannot be branched; fork another one",
  });
}

interface CaptureParts {
  readonly session: AgentSession;
  readonly staging: SnapshotStaging;
  readonly disk: DiskTurn;
}

/** Leaves the disk as it must be also when the capture fails, whose error is the one that counts. */
async function captureAndSettle(order: BranchOrder, parts: CaptureParts): Promise<CaptureResult> {
  const { deps, id } = order;
  const { disk } = parts;
  const captured = await capture(order, parts).catch(async (error: unknown) => {
    await disk.settle().catch((problem: unknown) => {
      deps.log.error("the disk of a failed branch is not settled", { id, error: problem });
    });
    throw error;
  });
  await disk.settle();
  return captured;
}

async function capture(
  { deps, id, child, scope, options, parent }: BranchOrder,
  { session, staging, disk }: CaptureParts,
): Promise<CaptureResult> {
  const holdMs = Math.ceil(options.maxPauseMs) + holdBeyondPauseMs;
  let holdLeftMs = 0;
  let heldSince = 0;
  const captured = await child.vm.capture({
    mode: options.mode === "live" ? "live" : "stopped",
    all: false,
    image: parent.memory,
    files: {
      vmstate: staging.vmstateFile,
      pages: staging.memoryFile,
      extents: staging.extentsFile,
    },
    disks: disk.captures,
    maxPauseMs: options.maxPauseMs,
    // Publishing syncs all files together.
    durable: false,
    beforeStop: async () => {
      heldSince = performance.now();
      await hold(session, holdMs);
    },
    afterResume: async () => {
      // Our clock is ahead of the guest's, which stood: that much was left at least.
      const leftMs = Math.floor(heldSince + holdMs - performance.now());
      const isReset = session.failure instanceof ChannelReset;
      if (!isReset) holdLeftMs = await thaw(session);
      else if (await child.agent.renew()) holdLeftMs = leftMs;
    },
    onPivot: disk.onPivot,
    signal: scope.signal,
  });
  requireHeld(holdLeftMs);
  // Its clock stood with it. A guest that does not take the time is no reason to lose the branch.
  const clock = child.agent.session().then((latest) => setClock(latest, clockTimeoutMs));
  await clock.catch((error: unknown) => {
    deps.log.warn("the clock of a branched guest is not set", { id, error });
  });
  return captured;
}

interface Captured {
  readonly session: AgentSession;
  readonly captured: CaptureResult;
  readonly diffMs: number;
  readonly scratch: SnapshotFacts["scratch"];
}

function factsOf(
  { id, child, options, parent }: BranchOrder,
  { session, captured, diffMs, scratch }: Captured,
): SnapshotFacts {
  const { engine, machine, kernel, rootfs, agent } = parent.manifest;
  const { identity } = child.journal.record.info;
  const measured = options.mode !== "full" || options.measureDiff;
  return {
    engine,
    machine,
    kernel,
    rootfs,
    agent: {
      ...agent,
      attach_token: session.nextToken.toString("hex"),
      generation: identity?.generation ?? agent.generation + 1,
    },
    bake: null,
    branch: {
      branched_from: id,
      mode: options.mode,
      pause_ms: captured.pauseMs,
      diff_ms: measured ? diffMs : null,
      diff_physical_bytes: options.measureDiff ? captured.pagesBytes : null,
      diff_logical_bytes: options.measureDiff ? machine.memory_mib * 1024 * 1024 : null,
      warning: null,
    },
    scratch,
  };
}
