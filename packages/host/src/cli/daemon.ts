import type { SnapshotInfo, SnapshotTag } from "@forkd/api";
import type { Client } from "@forkd/sdk";
import type { DataPaths } from "../config/data-paths.ts";
import type { Context, Settings } from "./context.ts";

/** Milliseconds that a daemon on this host may take to say what it has. */
const lookTimeoutMs = 2000;
export const listTimeoutMs = 10_000;
export const killTimeoutMs = 30_000;
/** A spawn of the largest n, emulated, on a small host. */
export const spawnTimeoutMs = 600_000;

export async function openClient(settings: Settings): Promise<Client> {
  const { Client } = await import("@forkd/sdk");
  const { daemonUrl: url, daemonToken: token } = settings;
  return new Client(token === undefined ? { url } : { url, token });
}

/** A daemon that answers, and what it has. */
export interface RunningDaemon {
  readonly client: Client;
  readonly snapshots: readonly SnapshotInfo[];
}

/**
 * The daemon for commands that also work without one: undefined when none answers or it does not
 * let us in. A daemon that the user named must answer: then its failure is thrown.
 */
export async function findDaemon(context: Context): Promise<RunningDaemon | undefined> {
  const { settings, output } = context;
  const client = await openClient(settings);
  try {
    const snapshots = await client.listSnapshots({
      timeoutMs: settings.daemonUrlGiven ? listTimeoutMs : lookTimeoutMs,
      signal: context.signal,
      // Whether one answers is the question.
      retriesMax: 0,
    });
    return { client, snapshots };
  } catch (error) {
    if (settings.daemonUrlGiven || context.signal.aborted) throw error;
    const { toForkdError } = await import("@forkd/api");
    const problem = toForkdError(error);
    if (problem.code !== "daemon_unreachable") {
      output.warn(`not using the daemon at ${settings.daemonUrl}: ${problem.message}`);
    }
    return undefined;
  }
}

/**
 * Whether the daemon's snapshots are the ones that the user means: always when the daemon was
 * named; when only a data directory was named, if the daemon keeps its snapshots there.
 */
export function daemonServes(settings: Settings, snapshot: SnapshotInfo): boolean {
  if (settings.daemonUrlGiven || !settings.dataDirGiven) return true;
  return isUnder(settings.paths, snapshot.dir);
}

function isUnder(paths: DataPaths, dir: string): boolean {
  return dir.startsWith(`${paths.snapshotsDir}/`);
}

/** The daemon that has this tag and is the one that the user means. */
export async function findDaemonWith(
  context: Context,
  tag: SnapshotTag,
): Promise<RunningDaemon | undefined> {
  const daemon = await findDaemon(context);
  const snapshot = daemon?.snapshots.find((item) => item.tag === tag);
  if (snapshot === undefined || !daemonServes(context.settings, snapshot)) return undefined;
  return daemon;
}
