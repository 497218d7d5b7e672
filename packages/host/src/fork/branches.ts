import { randomInt } from "node:crypto";
import {
  type BranchBody,
  ForkdError,
  parseSnapshotTag,
  type SandboxId,
  type SnapshotInfo,
  type SnapshotTag,
} from "@forkd/api";
import type { Reservation } from "../store/snapshots.ts";
import { branchChild, openParent } from "./branch.ts";
import { type BranchOptions, requireParent, resolveBranchOptions } from "./branch-options.ts";
import type { Child } from "./child.ts";
import type { ForkDeps } from "./deps.ts";
import type { BranchScope } from "./sandbox.ts";
import type { Sandboxes } from "./sandboxes.ts";

export interface BranchesOptions {
  readonly deps: ForkDeps;
  readonly sandboxes: Sandboxes;
  /** Branches at one time, those that nobody waits for included. */
  readonly placesMax: number;
  /** Called after every change of what the store lists. */
  readonly changed: () => void;
}

interface BranchPlan {
  readonly id: SandboxId;
  readonly tag: SnapshotTag;
  readonly body: BranchBody;
  readonly options: BranchOptions;
  /** Called once nothing but the work itself can go wrong. */
  readonly onBegun: (info: SnapshotInfo) => void;
}

/** The branches in flight: bounded, one a sandbox and one a tag, and all ended on request. */
export class Branches {
  readonly #options: BranchesOptions;
  readonly #running = new Set<Promise<unknown>>();
  readonly #abort = new AbortController();

  constructor(options: BranchesOptions) {
    this.#options = options;
  }

  get inFlight(): number {
    return this.#running.size;
  }

  /** See ForkService.branch. The checks come in the order that upstream's clients know. */
  async branch(id: SandboxId, body: BranchBody): Promise<SnapshotInfo> {
    const { placesMax, changed } = this.#options;
    if (this.#running.size >= placesMax) {
      throw new ForkdError("busy", `${placesMax} branches are being made already`);
    }
    const options = resolveBranchOptions(body);
    const tag = body.tag ?? newTag(id);
    const begun = Promise.withResolvers<SnapshotInfo>();
    const making = this.#make({ id, body, options, tag, onBegun: begun.resolve });
    this.#running.add(making);
    const settled = making.finally(() => {
      this.#running.delete(making);
      changed();
    });
    if (options.wait) return settled;
    settled.catch(begun.reject);
    return begun.promise;
  }

  /** Ends every branch; returns when what they had made is gone. Their guests run on. */
  async abortAll(): Promise<void> {
    this.#abort.abort(new ForkdError("busy", "forkd is shutting down"));
    await Promise.allSettled(this.#running);
  }

  async #make(plan: BranchPlan): Promise<SnapshotInfo> {
    const { deps, sandboxes } = this.#options;
    const { id, tag, options } = plan;
    const reservation = await deps.store.reserve(tag, { replace: false });
    reservation.note({ branched_from: id });
    const work = new BranchWork(() => plan.onBegun(reservation.describe()));
    try {
      return await sandboxes.whileBranching(id, (child, scope) =>
        work.run((onBegun) => this.#work(plan, { child, scope, reservation, onBegun })),
      );
    } catch (error) {
      const late = await work.outcome();
      if (late !== null) return late;
      // Whoever waits is told; else the list must.
      if (work.begun && !options.wait) await reservation.fail(error);
      throw error;
    } finally {
      if (options.wait || !work.begun) await reservation.release();
    }
  }

  async #work({ id, body, options }: BranchPlan, place: BranchPlace): Promise<SnapshotInfo> {
    const { deps, changed } = this.#options;
    const { child, scope, reservation, onBegun } = place;
    this.#abort.signal.throwIfAborted();
    requireParent(body, options.mode, child.journal.record.info.snapshot_tag);
    const parent = await openParent(deps, child);
    onBegun();
    changed();
    const signal = AbortSignal.any([scope.signal, this.#abort.signal]);
    const order = { deps, id, child, options, parent, reservation };
    return await branchChild({ ...order, scope: { ...scope, signal } });
  }
}

interface BranchPlace {
  readonly child: Child;
  readonly scope: BranchScope;
  readonly reservation: Reservation;
  readonly onBegun: () => void;
}

/** What a branch has in hand, which may outlast the sandbox's part in it. */
class BranchWork {
  begun = false;
  readonly #onBegun: () => void;
  #result: Promise<SnapshotInfo> | null = null;

  constructor(onBegun: () => void) {
    this.#onBegun = onBegun;
  }

  run(work: (onBegun: () => void) => Promise<SnapshotInfo>): Promise<SnapshotInfo> {
    this.#result = work(() => {
      this.begun = true;
      this.#onBegun();
    });
    return this.#result;
  }

  /**
   * The snapshot, if there is one after all; else null. A sandbox that ends does not wait for its
   * branch, but the directory that the branch writes must stay until it has stopped writing. Its
   * steps are bounded: the capture by its signal, the rest by the bytes that it has taken.
   */
  async outcome(): Promise<SnapshotInfo | null> {
    return (await this.#result?.catch(() => null)) ?? null;
  }
}

const counterMax = 0x1_0000;

/** As upstream names them: the sandbox, the second, and four hex digits against collisions. */
function newTag(id: SandboxId): SnapshotTag {
  const seconds = Math.floor(Date.now() / 1000);
  const counter = randomInt(counterMax).toString(16).padStart(4, "0");
  return parseSnapshotTag(`branch-${id}-${seconds}-${counter}`);
}
