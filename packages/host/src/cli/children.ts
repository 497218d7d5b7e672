import type {
  EvalRequest,
  EvalResult,
  ExecRequest,
  ExecResult,
  Pong,
  SandboxId,
  SandboxInfo,
  SnapshotTag,
} from "@forkd/api";
import { parseSandboxId } from "@forkd/api";
import type { Client } from "@forkd/sdk";
import type { ChildTimings, ForkService } from "../fork/service.ts";
import type { Context } from "./context.ts";
import { findDaemonWith, killTimeoutMs, spawnTimeoutMs } from "./daemon.ts";
import { untilStopped } from "./interrupt.ts";
import { withService } from "./local.ts";
import type { LimitsBody, NetworkBody } from "./spawn-options.ts";

/** Requests to guests or to the daemon that are under way at one time. */
const concurrencyMax = 32;

export interface ForkOrder {
  readonly tag: SnapshotTag;
  readonly count: number;
  readonly limits: LimitsBody;
  readonly network: NetworkBody;
  /** The least scratch disk, as the API names it. */
  readonly scratch_mib?: number;
}

/** One child of a fork, wherever it was made. */
export interface Child {
  readonly id: SandboxId;
  readonly info: SandboxInfo;
  /** Null from a daemon, which tells only the time to the proven identity. */
  readonly timings: ChildTimings | null;
}

/** A fork's children while they live, and how to ask whether they do. */
export interface Brood {
  readonly children: readonly Child[];
  /** The daemon's address, or null when this process owns the VMs. */
  readonly daemonUrl: string | null;
  /** Milliseconds until the way to make them was open: the daemon answered, or the VMMs ran. */
  readonly readyMs: number;
  /** Milliseconds from the command to the last child's proven identity. */
  readonly totalMs: number;
  readonly guests: Guests;
}

/** How a fork's children are talked to, wherever they run. */
export interface Guests {
  ping(id: SandboxId): Promise<Pong>;
  exec(id: SandboxId, request: ExecRequest): Promise<ExecResult>;
  eval(id: SandboxId, request: EvalRequest): Promise<EvalResult>;
}

function guestsOf(client: Client): Guests {
  return {
    ping: (id) => client.pingSandbox({ params: { id } }),
    exec: (id, body) => client.execSandbox({ params: { id }, body }),
    eval: (id, body) => client.evalSandbox({ params: { id }, body }),
  };
}

/**
 * Forks, lets `work` use the children, and kills them, whatever happens. Through the daemon when
 * one runs that has the tag, else in this process.
 */
export async function withChildren<T>(
  context: Context,
  order: ForkOrder,
  work: (brood: Brood) => Promise<T>,
): Promise<T> {
  const startedAt = performance.now();
  const daemon = await findDaemonWith(context, order.tag);
  if (daemon === undefined) {
    return withService(context, async (service) => work(await spawnHere(service, order)));
  }
  const readyMs = performance.now() - startedAt;
  const children = await spawnThere(context, daemon.client, order);
  try {
    const totalMs = performance.now() - startedAt;
    const { daemonUrl } = context.settings;
    const guests = guestsOf(daemon.client);
    const brood = { children, daemonUrl, readyMs, totalMs, guests };
    return await untilStopped(work(brood), context.signal);
  } finally {
    await killThere(daemon.client, children);
  }
}

async function spawnHere(service: ForkService, order: ForkOrder): Promise<Brood> {
  const startedAt = performance.now();
  const { askedLimits } = await import("../fork/asked-limits.ts");
  const { tag, count } = order;
  const limits = askedLimits(order.limits);
  const disk = order.scratch_mib === undefined ? {} : { scratchMib: order.scratch_mib };
  const { egressOf } = await import("../fork/asked-network.ts");
  const network = egressOf(order.network);
  const request = { tag, count, limits, minIsolation: null, ...disk, ...network };
  const spawned = await service.spawn(request);
  const children = spawned.map(({ info, timings }) => ({
    id: parseSandboxId(info.id),
    info,
    timings,
  }));
  return {
    children,
    daemonUrl: null,
    readyMs: Math.max(...spawned.map((child) => child.timings.processMs)),
    totalMs: performance.now() - startedAt,
    guests: service,
  };
}

/** A stop while the daemon spawns waits for its answer: only then are the ids known. */
async function spawnThere(context: Context, client: Client, order: ForkOrder): Promise<Child[]> {
  context.signal.throwIfAborted();
  const disk = order.scratch_mib === undefined ? {} : { scratch_mib: order.scratch_mib };
  const infos = await client.createSandboxes({
    body: { snapshot_tag: order.tag, n: order.count, ...order.limits, ...order.network, ...disk },
    timeoutMs: spawnTimeoutMs,
  });
  return infos.map((info) => ({ id: parseSandboxId(info.id), info, timings: null }));
}

async function killThere(client: Client, children: readonly Child[]): Promise<void> {
  const { toForkdError } = await import("@forkd/api");
  const failures = await mapBounded(children, async ({ id }) => {
    try {
      await client.deleteSandbox({ params: { id }, timeoutMs: killTimeoutMs });
      return undefined;
    } catch (error) {
      const problem = toForkdError(error);
      return problem.code === "sandbox_not_found" ? undefined : problem.within(`kill ${id}`);
    }
  });
  const first = failures.find((failure) => failure !== undefined);
  if (first !== undefined) throw first;
}

/** Like Promise.all over a map, with at most {@link concurrencyMax} at one time. */
export async function mapBounded<In, Out>(
  items: readonly In[],
  work: (item: In) => Promise<Out>,
): Promise<Out[]> {
  const results: Out[] = [];
  const queue = items.entries();
  const worker = async (): Promise<void> => {
    for (const [index, item] of queue) results[index] = await work(item);
  };
  await Promise.all(Array.from({ length: Math.min(concurrencyMax, items.length) }, worker));
  return results;
}
