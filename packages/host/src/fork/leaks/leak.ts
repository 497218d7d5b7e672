import type { DataPaths } from "../../config/data-paths.ts";
import type { GiveBackDeps } from "../give-back.ts";
import type { LimitKeeper } from "../limits.ts";

/** What kind of thing is there that nothing explains. */
export const leakKinds = [
  "process",
  "work_dir",
  "record",
  "staging",
  "cgroup",
  "netns",
  "memory_image",
] as const;
export type LeakKind = (typeof leakKinds)[number];

export interface Leak {
  readonly kind: LeakKind;
  /** Its path, or `pid N`. */
  readonly what: string;
  /** Why nothing explains it; a sentence without its full stop. */
  readonly why: string;
  /** Removes it; tells what was done. Throws when it could not be. */
  readonly fix: () => Promise<string>;
}

/** What finders look at, and what fixes work with. */
export interface LeakScope extends GiveBackDeps {
  readonly paths: DataPaths;
  readonly limits: LimitKeeper;
  /** Then what belongs to daemons is its business. */
  readonly daemonLives: boolean;
}

/** Looks for leaks of its kinds; changes nothing. */
export type LeakFinder = (scope: LeakScope) => Promise<Leak[]>;
