import { type BranchBody, type BranchMode, ForkdError, limits } from "@forkd/api";

/** A branch request without doubt left in it. */
export interface BranchOptions {
  readonly mode: BranchMode;
  readonly wait: boolean;
  /** Report what a diff would have held; with `full` only. */
  readonly measureDiff: boolean;
  readonly maxPauseMs: number;
}

/**
 * Which mode the booleans and `mode` ask for together. Throws bad_request, in the order that
 * upstream's clients know: `mode` with a true boolean first, then two booleans, then `wait`.
 */
export function resolveBranchOptions(body: BranchBody): BranchOptions {
  const { mode = null, diff, live, measure_diff: measureDiff, wait } = body;
  if (mode !== null && (diff || live)) {
    throw new ForkdError("bad_request", "mode cannot come together with diff or live", {
      hint: "send mode alone; diff and live are the older way to choose it",
    });
  }
  if ([diff, live, measureDiff].filter(Boolean).length > 1) {
    throw new ForkdError("bad_request", "only one of diff, live and measure_diff can be true");
  }
  const chosen = mode ?? (live ? "live" : diff ? "diff" : "full");
  if (!wait && chosen !== "live") {
    throw new ForkdError("bad_request", "wait: false is for live branches only", {
      hint: 'add "mode": "live"',
    });
  }
  const maxPauseMs = body.max_pause_ms ?? limits.branchPauseDefaultMs;
  return { mode: chosen, wait, measureDiff, maxPauseMs };
}

/** `parent_tag` only confirms what a diff is relative to. Throws bad_request. */
export function requireParent(body: BranchBody, mode: BranchMode, snapshotTag: string): void {
  const asked = body.parent_tag ?? null;
  if (asked === null) return;
  if (asked !== snapshotTag) {
    const message = `parent_tag is '${asked}', but the sandbox was forked from '${snapshotTag}'`;
    throw new ForkdError("bad_request", message, { hint: "leave parent_tag out" });
  }
  if (mode !== "diff") {
    throw new ForkdError("bad_request", "parent_tag is for branches with mode diff", {
      hint: 'add "mode": "diff", or leave parent_tag out',
    });
  }
}
