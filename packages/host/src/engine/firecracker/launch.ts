import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { withDeadline } from "../../lib/deadline.ts";
import { startOwnVmm } from "../own-vmm.ts";
import type { VmmProcess } from "../process.ts";
import type { VmmSpawn } from "../vmm-spawn.ts";
import { FirecrackerApi, FirecrackerRefusal } from "./api.ts";
import type { Card } from "./card.ts";
import { giveOwn, type JailUser, type OwnFile, type Provided, provide, vmFiles } from "./files.ts";
import type { FirecrackerHost } from "./host.ts";
import { jailDir, jailerArgv } from "./jail.ts";
import { VmJournal } from "./journal.ts";
import { watchFor } from "./sockets.ts";

export interface LaunchOrder {
  readonly workDir: string;
  readonly memoryMib: number;
  readonly dieWithParent: boolean;
  readonly cgroups: readonly string[];
  /** Null: the machine has none, and the VMM stays in our network. */
  readonly card: Card | null;
  readonly stdout: "nowhere" | "us";
  /** What it is to find in its own directory. */
  readonly files: readonly Provided[];
  /** What it is to find there if it can see nothing else. */
  readonly jailFiles: readonly Provided[];
  /** Its scratch disk; null: it has none. */
  readonly disk: OwnFile | null;
  /** Aborts when it is not wanted any more. */
  readonly signal?: AbortSignal;
}

/** A Firecracker that listens and has been told nothing yet. */
export interface Launched {
  readonly process: VmmProcess;
  readonly api: FirecrackerApi;
  readonly journal: VmJournal;
  /** Of its scratch disk; 0: it has none. */
  readonly diskBytes: number;
}

/**
 * Starts the VMM, in its jail if there is one. Leaves no process when it throws: disk_full,
 * engine_failed, deadline_exceeded, the signal's reason.
 */
export async function launch(host: FirecrackerHost, order: LaunchOrder): Promise<Launched> {
  const user = host.jail === null ? null : host.jail.users.take();
  try {
    return await start(host, order, user);
  } catch (error) {
    if (user !== null) host.jail?.users.release(user);
    throw error;
  }
}

async function start(
  host: FirecrackerHost,
  order: LaunchOrder,
  user: JailUser | null,
): Promise<Launched> {
  const { workDir, memoryMib, signal } = order;
  const relative = user === null ? "." : jailDir(host.binary);
  const journal = await VmJournal.create(workDir, { dir: relative, user, memory_mib: memoryMib });
  const { dir } = journal;
  // The jailer takes what is there already; its files must be before it closes the door.
  if (user !== null) await mkdir(dir, { recursive: true, mode: 0o700 });
  const files = user === null ? order.files : [...order.files, ...order.jailFiles];
  const binds = await provide(files, dir, user);
  const diskBytes = order.disk === null ? 0 : await giveOwn(order.disk, { dir, user, signal });
  signal?.throwIfAborted();
  const appearance = watchFor(dir, vmFiles.api);
  try {
    const begin = order.stdout === "us" ? startOwnVmm : host.broker.start;
    const process = await begin({
      argv: argvOf(host, { ...order, user, diskBytes }),
      workDir,
      dieWithParent: order.dieWithParent,
      cgroups: order.cgroups,
      sockets: 0,
      files: [],
      preload: null,
      binds,
      ...cardPlace(order.card, user),
      stdout: order.stdout,
    });
    const { socketMs, requestMs } = host.timeouts;
    const listening = withDeadline(appearance.happened, socketMs, "Firecracker's start");
    await process.orDeath(listening, "the start");
    if (user !== null) void process.ended.then(() => host.jail?.users.release(user));
    const api = new FirecrackerApi(join(dir, vmFiles.api), requestMs);
    return { process, api, journal, diskBytes };
  } finally {
    appearance[Symbol.dispose]();
  }
}

/**
 * Waits for an answer of Firecracker. When it throws, the VMM is gone; what Firecracker said before
 * it went is the better reason than how it went.
 */
export async function answered<T>(
  process: VmmProcess,
  answer: Promise<T>,
  what: string,
): Promise<T> {
  let refusal: FirecrackerRefusal | undefined;
  const heard = answer.catch((error: unknown) => {
    if (error instanceof FirecrackerRefusal) refusal = error;
    throw error;
  });
  try {
    return await process.orDeath(heard, what);
  } catch (error) {
    throw refusal ?? error;
  }
}

/** A jailed VMM opens the tap by being its owner; as ourselves it needs no leave. */
function cardPlace(
  card: Card | null,
  user: JailUser | null,
): Pick<VmmSpawn, "netns" | "ownNetns" | "tap"> {
  if (card === null) return {};
  const owner = user?.uid ?? process.getuid?.() ?? 0;
  const { netns, tap } = card;
  return { netns, ownNetns: netns === null, tap: { name: tap, uid: owner } };
}

/** An order of which is known who runs it, and what disk it got. */
interface LaunchPlan extends LaunchOrder {
  readonly user: JailUser | null;
  readonly diskBytes: number;
}

/** There is no way to start it without its seccomp filters. */
function argvOf(host: FirecrackerHost, plan: LaunchPlan): string[] {
  const { workDir, user, memoryMib, diskBytes } = plan;
  const own = ["--api-sock", vmFiles.api, "--level", "Error"];
  if (host.jail === null || user === null) return [host.binary, ...own];
  const { settings } = host.jail;
  const jailer = jailerArgv({
    settings,
    binary: host.binary,
    workDir,
    user,
    largestFileBytes: Math.max(memoryMib * 1024 * 1024, diskBytes),
  });
  return [...jailer, ...own];
}
