import type { DoctorScope } from "./scope.ts";

/** `warn`: it works, but less well than it could; `skip`: it does not matter on this host. */
export const checkStatuses = ["pass", "warn", "fail", "skip"] as const;
export type CheckStatus = (typeof checkStatuses)[number];

/** Mends what a check found, and tells what it did. Throws when it could not. */
export type Fix = () => Promise<string>;

/** What one check found. */
export interface Finding {
  readonly status: CheckStatus;
  /** What was seen; a sentence without its full stop. */
  readonly detail: string;
  /** A command line that mends it when it is pasted into a shell; null when there is none. */
  readonly hint: string | null;
  /** For what may be mended without asking: it changes only what is forkd's. */
  readonly fix: Fix | null;
}

/** One thing to look at. */
export interface Check {
  /** Unique, in lower case: what `--only` takes. */
  readonly name: string;
  /** Milliseconds until it is given up; checkTimeoutDefaultMs when absent. */
  readonly timeoutMs?: number | ((scope: DoctorScope) => number);
  /** Changes nothing. What it throws is a failure with the thrown error's hint. */
  readonly run: (scope: DoctorScope) => Promise<Finding>;
}

/** Checks that run one after the other, because they use the same things. */
export interface CheckFamily {
  readonly name: string;
  readonly checks: readonly Check[];
}

export function pass(detail: string): Finding {
  return { status: "pass", detail, hint: null, fix: null };
}

export function skip(detail: string, hint: string | null = null): Finding {
  return { status: "skip", detail, hint, fix: null };
}

export function warn(detail: string, hint: string, fix: Fix | null = null): Finding {
  return { status: "warn", detail, hint, fix };
}

export function fail(detail: string, hint: string, fix: Fix | null = null): Finding {
  return { status: "fail", detail, hint, fix };
}
