import { z } from "zod";
import { snapshotTagSchema } from "./ids.ts";
import { limits } from "./limits.ts";

/**
 * How a running sandbox becomes a snapshot. `full`: one that needs no other; `diff`: the changed
 * pages only, copied while the guest stands; `live`: the same, most of it copied while it runs.
 */
export const branchModeSchema = z.enum(["full", "diff", "live"]);
export type BranchMode = z.infer<typeof branchModeSchema>;

/**
 * `POST /v1/sandboxes/{id}/branch`. The booleans are the older way to choose a mode; which of them
 * may come together is checked in the order that upstream's clients know, see docs/api.md.
 */
export const branchRequestSchema = z.object({
  /** The new snapshot's name; without it one is made from the sandbox's id and the time. */
  tag: snapshotTagSchema.nullish(),
  mode: branchModeSchema.nullish(),
  diff: z.boolean().default(false),
  live: z.boolean().default(false),
  /** A full branch that also reports what a diff would have held. */
  measure_diff: z.boolean().default(false),
  /** `false`, for live only: answer 202 at once, the snapshot is `writing` until it is complete. */
  wait: z.boolean().default(true),
  /** What the diff must be relative to: only ever the snapshot that the sandbox was forked from. */
  parent_tag: snapshotTagSchema.nullish(),
  /** Gives up, and lets the guest go on, rather than stop it for longer. */
  max_pause_ms: z.number().positive().max(limits.branchPauseMaxMs).nullish(),
});
export type BranchBody = z.infer<typeof branchRequestSchema>;
