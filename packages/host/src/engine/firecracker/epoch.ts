/**
 * What Firecracker's record of written pages is relative to.
 *
 * The record is cleared by every snapshot of any type, and by a load; a snapshot that failed may
 * have cleared it or not. forkd needs what differs from the image that a child was forked from. So
 * each diff is written into one file of the child, its pages of changes, over what is there: the
 * file together with the record is always all that differs, or it is known that it is not.
 */

/**
 * - `image`: the record alone is what differs; no diff was taken yet
 * - `pages`: the record and the pages of changes together are what differs
 * - `taking`: a diff was begun, and nobody has seen how it ended
 * - `lost`: what differs is not known; only the whole RAM is right
 */
export const epochStates = ["image", "pages", "taking", "lost"] as const;
export type EpochState = (typeof epochStates)[number];

/**
 * - `diff_begun`: before Firecracker is asked for one
 * - `diff_done`: it has answered that all of it is in the file
 * - `diff_failed`: it refused, broke, or was not awaited to its end
 * - `full_taken`: a whole snapshot was asked for, whatever came of it: the record is gone
 * - `adopted`: another process owns the child from now on
 */
export type EpochEvent = "diff_begun" | "diff_done" | "diff_failed" | "full_taken" | "adopted";

type Row = Readonly<Record<EpochEvent, EpochState | "bug">>;

const table: Readonly<Record<EpochState, Row>> = {
  image: {
    diff_begun: "taking",
    diff_done: "bug",
    diff_failed: "bug",
    full_taken: "lost",
    adopted: "image",
  },
  pages: {
    diff_begun: "taking",
    diff_done: "bug",
    diff_failed: "bug",
    full_taken: "lost",
    adopted: "pages",
  },
  taking: {
    diff_begun: "bug",
    diff_done: "pages",
    diff_failed: "lost",
    full_taken: "bug",
    // Its owner died in the middle: the record may be cleared and the file incomplete.
    adopted: "lost",
  },
  lost: {
    diff_begun: "bug",
    diff_done: "bug",
    diff_failed: "bug",
    full_taken: "lost",
    adopted: "lost",
  },
};

/** The state after an event. Throws for an event that cannot happen in this state: a bug of ours. */
export function nextEpoch(state: EpochState, event: EpochEvent): EpochState {
  const next = table[state][event];
  if (next !== "bug") return next;
  throw new Error(`${event} cannot happen to dirty pages that are ${state}`);
}

/** Whether a diff would be all that differs from the image, together with the pages of changes. */
export function canDiff(state: EpochState): boolean {
  return state === "image" || state === "pages";
}
