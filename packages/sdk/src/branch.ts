import type { BranchMode, RouteRequest } from "@forkd/api";
import type { CallControl } from "./deadline.ts";

/** How a running sandbox becomes a snapshot. Absent means the daemon's default. */
export interface BranchOptions extends CallControl {
  /** The new snapshot's name; the daemon makes one up when there is none. */
  readonly tag?: string | undefined;
  readonly mode?: BranchMode | undefined;
  /** The older way to say `mode: "diff"`; not sent when a mode is given. */
  readonly diff?: boolean | undefined;
  /** Reports what a diff would have held, without making one. */
  readonly measure_diff?: boolean | undefined;
  /** `false`, for live only: answer while the snapshot is still `writing`; see Snapshot.ready. */
  readonly wait?: boolean | undefined;
  /** What a diff must be relative to. */
  readonly parentTag?: string | undefined;
  /** Gives up, and lets the guest go on, rather than stop it for longer; milliseconds. */
  readonly maxPauseMs?: number | undefined;
}

type BranchRequest = RouteRequest<"branchSandbox">;

/** The request's body, with the fields only that differ from the daemon's defaults. */
export function branchBody(options: BranchOptions): BranchRequest {
  const { tag, mode, diff, measure_diff, wait, parentTag, maxPauseMs } = options;
  return {
    ...(tag !== undefined && { tag }),
    ...(mode !== undefined && { mode }),
    ...(mode === undefined && diff === true && { diff }),
    ...(measure_diff === true && { measure_diff }),
    ...(wait === false && { wait }),
    ...(parentTag !== undefined && { parent_tag: parentTag }),
    ...(maxPauseMs !== undefined && { max_pause_ms: maxPauseMs }),
  };
}
