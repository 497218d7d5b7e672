import { type EndReason, ForkdError, limits, type SandboxState } from "@forkd/api";
import { restoreMaxMs } from "../engine/engine.ts";

/**
 * What can happen to a sandbox.
 *
 * - `opened`: its guest proved an identity of its own, or a later owner took it over
 * - `failed`: its start went wrong
 * - `branch`, `branched`: a branch asks to begin; the one that was under way has settled
 * - `kill`: somebody wants it ended
 * - `died`: its VMM ended by itself
 * - `overdue`: it was in its state for as long as that state may last
 * - `released`: its VMM and all that it held are gone
 */
export const sandboxEvents = [
  "opened",
  "failed",
  "branch",
  "branched",
  "kill",
  "died",
  "overdue",
  "released",
] as const;
export type SandboxEvent = (typeof sandboxEvents)[number];

/**
 * What an event does: lead to another state, nothing (it comes late, or says what is known), be
 * refused with a code for whoever asked, or prove that forkd is wrong.
 */
type Outcome = SandboxState | "stay" | "refuse_busy" | "refuse_ended" | "bug";

/** The one table of what may follow what. */
export const transitions: Readonly<Record<SandboxState, Readonly<Record<SandboxEvent, Outcome>>>> =
  {
    starting: {
      opened: "running",
      failed: "ending",
      branch: "refuse_busy",
      branched: "bug",
      kill: "ending",
      died: "ending",
      overdue: "ending",
      released: "bug",
    },
    running: {
      opened: "bug",
      failed: "bug",
      branch: "branching",
      // A branch that was given up as overdue.
      branched: "stay",
      kill: "ending",
      died: "ending",
      overdue: "bug",
      released: "bug",
    },
    branching: {
      opened: "bug",
      failed: "bug",
      branch: "refuse_busy",
      branched: "running",
      kill: "ending",
      died: "ending",
      overdue: "running",
      released: "bug",
    },
    ending: {
      opened: "stay",
      failed: "stay",
      branch: "refuse_ended",
      branched: "stay",
      kill: "stay",
      died: "stay",
      overdue: "ended",
      released: "ended",
    },
    ended: {
      opened: "stay",
      failed: "stay",
      branch: "refuse_ended",
      branched: "stay",
      kill: "stay",
      died: "stay",
      overdue: "bug",
      released: "stay",
    },
  };

/** Its agent says hello and proves its identity, each within what `--identity-timeout-secs` says. */
const identityMaxMs = 2 * 1000 * limits.identityTimeoutMaxSecs;
const startMaxMs = restoreMaxMs + identityMaxMs;
/** A full copy of the largest guest to a slow disk. */
const branchMaxMs = 300_000;
/** A kill is immediate; what may take its time is the removal of a large scratch disk. */
const endMaxMs = 30_000;

/** How long each state may last; then `overdue` happens. Null where nothing is awaited. */
export type StateBounds = Readonly<Record<SandboxState, number | null>>;

export const stateBoundsMs: StateBounds = {
  starting: startMaxMs,
  running: null,
  branching: branchMaxMs,
  ending: endMaxMs,
  ended: null,
};

export interface LifecycleOptions {
  /** For messages. */
  readonly id: string;
  readonly boundsMs: StateBounds;
  /** Called after every change, synchronously. */
  readonly onEnter: (state: SandboxState, event: SandboxEvent) => void;
}

/** The state of one sandbox. It changes by {@link Lifecycle.apply} and by its deadlines only. */
export class Lifecycle {
  readonly #options: LifecycleOptions;
  #state: SandboxState = "starting";
  #timer: NodeJS.Timeout | undefined;

  constructor(options: LifecycleOptions) {
    this.#options = options;
    this.#watch();
  }

  get state(): SandboxState {
    return this.#state;
  }

  /** Whether the event changed the state. Throws sandbox_busy, sandbox_ended, internal. */
  apply(event: SandboxEvent): boolean {
    const outcome = transitions[this.#state][event];
    switch (outcome) {
      case "stay":
        return false;
      case "refuse_busy":
        throw new ForkdError("sandbox_busy", `sandbox ${this.#options.id} is ${this.#state}`);
      case "refuse_ended":
        throw new ForkdError("sandbox_ended", `sandbox ${this.#options.id} has ended`);
      case "bug":
        throw new ForkdError("internal", `${event} cannot happen to a ${this.#state} sandbox`);
      default:
        this.#enter(outcome, event);
        return true;
    }
  }

  /** Lets the process exit: no deadline is watched any more. */
  detach(): void {
    clearTimeout(this.#timer);
  }

  #enter(state: SandboxState, event: SandboxEvent): void {
    this.#state = state;
    this.#watch();
    this.#options.onEnter(state, event);
  }

  #watch(): void {
    clearTimeout(this.#timer);
    const boundMs = this.#options.boundsMs[this.#state];
    if (boundMs !== null) this.#timer = setTimeout(() => this.apply("overdue"), boundMs);
  }
}

/** Why a sandbox ends; the time is added when it begins to. */
export interface EndCause {
  readonly reason: EndReason;
  readonly detail: string;
}
