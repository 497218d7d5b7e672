import type { ForkdError } from "@forkd/api";
import type { CleanupKind } from "./places.ts";

/** Something that may go, or stays for a reason. */
export interface CleanupItem {
  readonly kind: CleanupKind;
  /** Its path; of a leak that has none, `pid N`. */
  readonly what: string;
  readonly why: string;
  /** Bytes on disk or in memory. */
  readonly bytes: number;
  /** Why it stays; null for what goes. */
  readonly keep: string | null;
  /** Whether it is gone. */
  readonly removed: boolean;
  readonly problem: ForkdError | null;
}
