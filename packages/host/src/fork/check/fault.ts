import { type ErrorCode, toForkdError } from "@forkd/api";
import type { DataPaths } from "../../config/data-paths.ts";

export const faultKinds = ["snapshot", "image", "kernel", "initrd", "stray"] as const;
export type FaultKind = (typeof faultKinds)[number];

/** Something in the store that is not as it should be. */
export interface Fault {
  readonly kind: FaultKind;
  /** A tag, a hash, an id or a path. */
  readonly what: string;
  /** Null for what is no failure, but has no business to be there. */
  readonly code: ErrorCode | null;
  readonly why: string;
  /** The next command. */
  readonly hint: string;
}

/** What was looked at, and what was found. */
export interface Findings {
  readonly checked: number;
  /** Bytes that were read and hashed. */
  readonly bytes: number;
  readonly faults: readonly Fault[];
}

export interface CheckScope {
  readonly paths: DataPaths;
  /** A line for people, before something that may take long. */
  readonly onNotice: (text: string) => void;
  /** Looked at between files. */
  readonly signal: AbortSignal;
}

/** A failure as a fault. Throws the failure itself when it is none of the store's. */
export function faultOf(kind: FaultKind, what: string, error: unknown): Fault {
  const { code, message, hint } = toForkdError(error);
  if (code === "internal" || code === "permission_denied") throw error;
  return { kind, what, code, why: message, hint };
}

/** A file or directory that nothing made or nothing uses. */
export function stray(path: string, why: string): Fault {
  const hint = "look at it; if nobody needs it, remove it by hand";
  return { kind: "stray", what: path, code: null, why, hint };
}

/** Several findings as one. */
export function together(all: readonly Findings[]): Findings {
  return {
    checked: all.reduce((sum, { checked }) => sum + checked, 0),
    bytes: all.reduce((sum, { bytes }) => sum + bytes, 0),
    faults: all.flatMap(({ faults }) => faults),
  };
}
