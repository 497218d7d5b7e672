import { existsSync } from "node:fs";
import { ForkdError, toForkdError } from "@forkd/api";
import type { DataPaths } from "../../config/data-paths.ts";
import { silentLogger } from "../../lib/log.ts";
import { identifyProcess } from "../../linux/proc.ts";
import { layout } from "../../store/layout.ts";
import { acquireDaemonLock, findDaemon, type Lock } from "../daemon-lock.ts";
import { History } from "../history.ts";
import { LimitKeeper } from "../limits.ts";
import { findCgroups } from "./cgroups.ts";
import type { Leak, LeakFinder, LeakScope } from "./leak.ts";
import { findNetns } from "./netns.ts";
import { findMemoryImages, findStaging } from "./store.ts";
import { findHistory, findProcesses, findWorkDirs } from "./work.ts";

/** Everything that forkd may leave on a host has a finder here. */
const finders: readonly LeakFinder[] = [
  findWorkDirs,
  findProcesses,
  findCgroups,
  findNetns,
  findStaging,
  findMemoryImages,
  findHistory,
];

/** A leak, and what became of it; both null when it was only looked for. */
export interface LeakReport extends Omit<Leak, "fix"> {
  readonly fixed: string | null;
  readonly problem: ForkdError | null;
}

/** What exists and no record explains. Works with and without a daemon. */
export async function listLeaks(paths: DataPaths): Promise<LeakReport[]> {
  await using resources = new AsyncDisposableStack();
  const scope = openScope(paths, { daemonLives: (await findDaemon(paths)) !== undefined });
  resources.defer(() => scope.limits.close());
  return (await find(scope)).map((leak) => report(leak, {}));
}

/**
 * Removes what {@link listLeaks} finds, and nothing of a living daemon. While it does, no daemon of
 * the directory starts.
 */
export async function fixLeaks(paths: DataPaths): Promise<LeakReport[]> {
  await using resources = new AsyncDisposableStack();
  if (!existsSync(paths.dataDir)) return [];
  const lock = await lockUnlessDaemon(paths);
  resources.defer(async () => lock?.release());
  const scope = openScope(paths, {
    daemonLives: lock === undefined,
    // Only what no daemon looks after is undone, so nobody else writes there.
    ...(lock !== undefined && { history: await History.open(layout.endedDir(paths)) }),
  });
  resources.defer(() => scope.limits.close());
  const reports: LeakReport[] = [];
  for (const leak of await find(scope)) {
    try {
      reports.push(report(leak, { fixed: await leak.fix() }));
    } catch (error) {
      reports.push(report(leak, { problem: toForkdError(error) }));
    }
  }
  return reports;
}

async function find(scope: LeakScope): Promise<Leak[]> {
  const found: Leak[] = [];
  for (const finder of finders) found.push(...(await finder(scope)));
  return found;
}

function report(
  { kind, what, why }: Leak,
  end: { readonly fixed?: string; readonly problem?: ForkdError },
): LeakReport {
  return { kind, what, why, fixed: end.fixed ?? null, problem: end.problem ?? null };
}

function openScope(
  paths: DataPaths,
  known: { readonly daemonLives: boolean; readonly history?: History },
): LeakScope {
  return {
    paths,
    daemonLives: known.daemonLives,
    limits: new LimitKeeper(paths),
    owner: self(),
    history: known.history ?? null,
    log: silentLogger,
    onStep: () => undefined,
  };
}

async function lockUnlessDaemon(paths: DataPaths): Promise<Lock | undefined> {
  try {
    return await acquireDaemonLock(paths, self());
  } catch (error) {
    if (toForkdError(error).code === "data_dir_locked") return undefined;
    throw error;
  }
}

function self() {
  const identity = identifyProcess(process.pid);
  if (identity !== undefined) return identity;
  throw new ForkdError("internal", "/proc does not know this process");
}
