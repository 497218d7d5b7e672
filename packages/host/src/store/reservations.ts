import { ForkdError, type SnapshotInfo, type SnapshotTag } from "@forkd/api";

/** What the maker of a snapshot can say of it before it is there. */
export type WritingFacts = Partial<
  Pick<
    SnapshotInfo,
    "branched_from" | "pause_ms" | "diff_ms" | "diff_physical_bytes" | "diff_logical_bytes"
  >
>;

/**
 * `checking`: taken, but not yet known whether the name is free. `writing`: there is nothing on
 * disk. `replacing`: an older snapshot has the name, and can be used, until the new one is there.
 * `failed`: the writing failed where nobody waited for it.
 */
type ReservedState = "checking" | "writing" | "replacing" | "failed";

/** A tag that is taken by this process. */
export interface Reserved {
  readonly tag: SnapshotTag;
  readonly dir: string;
  readonly createdAtUnix: number;
  state: ReservedState;
  parent: SnapshotTag | null;
  facts: WritingFacts;
  failure: string;
}

/** The tags that are taken but not on disk: gone with this process, as what it was writing. */
export class Reservations {
  readonly #taken = new Map<SnapshotTag, Reserved>();

  /** Throws snapshot_exists for a tag that is being written, or that failed and is not replaced. */
  take(
    tag: SnapshotTag,
    { dir, replace }: { readonly dir: string; readonly replace: boolean },
  ): Reserved {
    const other = this.#taken.get(tag);
    if (other?.state === "failed" && !replace) {
      throw new ForkdError("snapshot_exists", `snapshot '${tag}' failed: ${other.failure}`);
    }
    if (other !== undefined && other.state !== "failed") {
      throw new ForkdError("snapshot_exists", `snapshot '${tag}' is being written`, {
        hint: "wait for it, or choose another tag",
      });
    }
    const reserved: Reserved = {
      tag,
      dir,
      createdAtUnix: Math.floor(Date.now() / 1000),
      state: "checking",
      parent: null,
      facts: {},
      failure: "",
    };
    this.#taken.set(tag, reserved);
    return reserved;
  }

  /** Only the reservation itself: the tag may be another's by now. */
  drop(reserved: Reserved): void {
    if (this.#taken.get(reserved.tag) === reserved) this.#taken.delete(reserved.tag);
  }

  has(tag: SnapshotTag): boolean {
    return this.#taken.has(tag);
  }

  /** Those whose tag has nothing on disk that could be used. */
  unwritten(): readonly Reserved[] {
    return [...this.#taken.values()].filter(
      ({ state }) => state === "writing" || state === "failed",
    );
  }

  /** The snapshots being written that are to be links of another. */
  links(): readonly { readonly tag: SnapshotTag; readonly parent: SnapshotTag }[] {
    return [...this.#taken.values()].flatMap(({ tag, parent, state }) =>
      parent === null || state === "failed" ? [] : [{ tag, parent }],
    );
  }

  /** Frees the tag of a failed one. Says whether there was one. */
  dismiss(tag: SnapshotTag): boolean {
    return this.#taken.get(tag)?.state === "failed" && this.#taken.delete(tag);
  }

  /** Throws snapshot_not_ready, with the reason, for a tag that has nothing on disk yet. */
  requireUsable(tag: SnapshotTag): void {
    const reserved = this.#taken.get(tag);
    if (reserved?.state === "writing") throw notReady(`snapshot '${tag}' is being written`);
    if (reserved?.state !== "failed") return;
    throw notReady(`snapshot '${tag}' failed: ${reserved.failure}`, `remove it: forkd rmi ${tag}`);
  }

  /** Throws snapshot_not_ready for a tag that must not be removed under its writer. */
  requireWritten(tag: SnapshotTag): void {
    const reserved = this.#taken.get(tag);
    if (reserved === undefined || reserved.state === "failed") return;
    throw notReady(`snapshot '${tag}' is being written`);
  }
}

function notReady(message: string, hint?: string): ForkdError {
  return new ForkdError("snapshot_not_ready", message, hint === undefined ? {} : { hint });
}

/** A reservation as lists show it. */
export function describeReserved(reserved: Reserved): SnapshotInfo {
  const { tag, dir, createdAtUnix, facts, failure, parent, state } = reserved;
  return {
    tag,
    dir,
    created_at_unix: createdAtUnix,
    ...facts,
    status: state === "failed" ? "failed" : "writing",
    bootable: false,
    ...(parent === null ? {} : { parent_tag: parent }),
    ...(state === "failed" ? { warning: failure } : {}),
  };
}
