import { randomBytes } from "node:crypto";
import {
  type EndReason,
  type EngineName,
  type EvalEnd,
  type EvalRequest,
  type EvalResult,
  type ExecRequest,
  type ExecResult,
  ForkdError,
  limits,
  type Pong,
  parseSandboxId,
  type SandboxId,
  type SandboxInfo,
} from "@forkd/api";
import type { EvalFeed } from "../agent/eval-feed.ts";
import { evaluate, evaluateStreamed } from "../agent/evals.ts";
import { exec, ping } from "../agent/guest.ts";
import type { AgentSession } from "../agent/session.ts";
import { withDeadline } from "../lib/deadline.ts";
import { Semaphore } from "../lib/semaphore.ts";
import type { Snapshot } from "../store/snapshots.ts";
import { type Child, type ChildPlan, draftInfo, type ForkedChild, forkChild } from "./child.ts";
import type { ForkDeps } from "./deps.ts";
import { Journal } from "./journal.ts";
import type { EndCause, StateBounds } from "./lifecycle.ts";
import { renderRecord, type SandboxRecord } from "./record.ts";
import { type BranchScope, endedError, Sandbox, type SandboxOptions } from "./sandbox.ts";
import { requireScratch } from "./scratch.ts";
import type { ServiceLoad, SpawnedSandbox, SpawnRequest } from "./service.ts";
import { createWorkDir } from "./work-dir.ts";

const pingTimeoutMs = 3_000;
/** For who asks something of a sandbox that is not open yet; longer than most starts take. */
const openWaitMs = 30_000;
/** From the break of a guest's channel to the news of its VMM's end. */
const endSeenMs = 1_000;
const isolationRank = { "vm-emulated": 0, vm: 1 } as const;

/** One child of a spawn. */
interface ForkOrder {
  readonly snapshot: Snapshot;
  readonly request: SpawnRequest;
  /** When the spawn began, as performance.now(). */
  readonly started: number;
  /** Aborts when the spawn is given up. */
  readonly signal: AbortSignal;
  /** Every sandbox that was begun. */
  readonly begun: Sandbox[];
}

export interface SandboxesOptions {
  readonly deps: ForkDeps;
  /** Called after every change of what `list` gives. */
  readonly changed: () => void;
  /** Called after every change of one sandbox. */
  readonly onSandbox?: (info: SandboxInfo) => void;
  readonly boundsMs?: StateBounds;
}

/** The sandboxes of one owner: the live ones, and those that it remembers. */
export class Sandboxes {
  readonly #versions = new Map<EngineName, Promise<string>>();
  readonly #options: SandboxesOptions;
  readonly #deps: ForkDeps;
  readonly #live = new Map<SandboxId, Sandbox>();
  readonly #restores = new Semaphore({
    places: limits.concurrentRestoresMax,
    waitingMax: limits.queuedRestoresMax,
    what: "restores",
  });
  readonly #spawning = new Set<Promise<unknown>>();
  readonly #ends = new Map<EndReason, number>();
  #closed = false;

  constructor(options: SandboxesOptions) {
    this.#options = options;
    this.#deps = options.deps;
  }

  /** All or nothing: when one child fails, those that wait are not begun and the others end. */
  async spawn(request: SpawnRequest): Promise<SpawnedSandbox[]> {
    const spawning = this.#spawn(request);
    this.#spawning.add(spawning);
    return await spawning.finally(() => this.#spawning.delete(spawning));
  }

  /** Takes over a sandbox that an owner who is gone left running. */
  adopt(journal: Journal, start: SandboxOptions["start"]): Sandbox {
    return this.#begin(journal, start);
  }

  /** Leaves every sandbox running, for the next owner of the data directory. */
  async detachAll(): Promise<void> {
    this.#closed = true;
    await Promise.allSettled(this.#spawning);
    const ending = [...this.#live.values()].filter(({ info }) => info.state === "ending");
    await Promise.allSettled(ending.map(({ ended }) => ended));
    for (const sandbox of this.#live.values()) sandbox.detach();
  }

  /** Ends every sandbox, those that are still being forked too. */
  async killAll(): Promise<void> {
    this.#closed = true;
    const drained: EndCause = { reason: "drained", detail: "its owner stopped" };
    await Promise.all([...this.#live.values()].map((sandbox) => sandbox.kill(drained)));
    await Promise.allSettled(this.#spawning);
  }

  /** The live ones. */
  list(): SandboxInfo[] {
    return [...this.#live.values()].map(({ info }) => info);
  }

  load(): ServiceLoad {
    return { restores: this.#restores.load, ends: this.#ends };
  }

  /** Those that have ended and are remembered, the latest first. */
  async listEnded(): Promise<SandboxInfo[]> {
    return (await this.#deps.history?.list()) ?? [];
  }

  /** A live one, or one that is remembered. Throws sandbox_not_found. */
  async get(id: SandboxId): Promise<SandboxInfo> {
    const info = this.#live.get(id)?.info ?? (await this.#deps.history?.get(id));
    if (info !== undefined) return info;
    throw new ForkdError("sandbox_not_found", `sandbox '${id}' not found`);
  }

  /** Resolves when a sandbox has ended and what it had was given back; at once for any other id. */
  async untilEnded(id: SandboxId): Promise<void> {
    await this.#live.get(id)?.ended;
  }

  /** Resolves when a sandbox is open or will never be; at once for any other id. */
  async untilOpen(id: SandboxId): Promise<void> {
    await this.#live.get(id)?.opened.catch(() => undefined);
  }

  /** Idempotent while it is remembered. Throws sandbox_not_found for one that never was. */
  async kill(id: SandboxId): Promise<void> {
    const sandbox = this.#live.get(id);
    if (sandbox === undefined) await this.get(id);
    else await sandbox.kill({ reason: "killed", detail: "somebody asked for it" });
  }

  /**
   * Runs one branch of a sandbox; see {@link Sandbox.branch}. Throws sandbox_busy while another one
   * is under way, sandbox_ended, sandbox_not_found.
   */
  async whileBranching<T>(
    id: SandboxId,
    work: (child: Child, scope: BranchScope) => Promise<T>,
  ): Promise<T> {
    const sandbox = await this.#find(id);
    return await sandbox.branch(work);
  }

  async ping(id: SandboxId): Promise<Pong> {
    const session = await this.#session(id);
    const started = performance.now();
    const pong = await ping(session, pingTimeoutMs);
    const rttUs = Math.round((performance.now() - started) * 1000);
    const { agent } = await session.hello;
    return { ...pong, agent_version: agent, agent_rtt_us: rttUs };
  }

  async exec(id: SandboxId, request: ExecRequest, signal?: AbortSignal): Promise<ExecResult> {
    return await this.call(id, (session) => exec(session, request, signal));
  }

  async eval(id: SandboxId, request: EvalRequest, signal?: AbortSignal): Promise<EvalResult> {
    return await this.call(id, (session) => evaluate(session, request, signal));
  }

  async evalStreamed(
    id: SandboxId,
    request: EvalRequest,
    followed: { readonly feed: EvalFeed; readonly signal: AbortSignal | undefined },
  ): Promise<EvalEnd> {
    return await this.call(id, (session) => evaluateStreamed(session, request, followed));
  }

  /**
   * Runs work on the session with a sandbox's agent, once it is open. Work that the sandbox's end
   * cut off is told of that end. Throws sandbox_not_found, sandbox_ended, agent_unavailable.
   */
  async call<T>(id: SandboxId, work: (session: AgentSession) => Promise<T>): Promise<T> {
    const sandbox = await this.#find(id);
    const session = await this.#session(id);
    try {
      return await work(session);
    } catch (error) {
      if (session.failure === undefined) throw error;
      // A channel is seen to break a moment before the end of the VMM that broke it.
      const { promise: late, resolve } = Promise.withResolvers<undefined>();
      const timer = setTimeout(resolve, endSeenMs, undefined);
      const end = await Promise.race([sandbox.over, late]).finally(() => clearTimeout(timer));
      throw end === undefined ? error : endedError(id, end);
    }
  }

  async #session(id: SandboxId): Promise<AgentSession> {
    const sandbox = await this.#find(id);
    const child = await withDeadline(sandbox.opened, openWaitMs, `the start of ${id}`);
    return await child.agent.session();
  }

  /** Throws sandbox_not_found, or sandbox_ended with how it did. */
  async #find(id: SandboxId): Promise<Sandbox> {
    const sandbox = this.#live.get(id);
    const info = sandbox?.info ?? (await this.get(id));
    if (sandbox !== undefined && info.end === null) return sandbox;
    if (info.end !== null) throw endedError(id, info.end);
    throw new ForkdError("sandbox_not_found", `sandbox '${id}' not found`);
  }

  async #spawn(request: SpawnRequest): Promise<SpawnedSandbox[]> {
    const started = performance.now();
    const snapshot = await this.#deps.store.open(request.tag);
    await this.#requireCompatible(snapshot, request);
    if (request.egress !== undefined) await this.#requireNetwork(snapshot, request.count);
    this.#restores.requireRoom(request.count);
    // The first failure, or the caller's: what still waits need not begin.
    const doomed = new AbortController();
    const onAbort = (): void => doomed.abort(request.signal?.reason);
    request.signal?.addEventListener("abort", onAbort, { once: true });
    if (request.signal?.aborted) onAbort();
    const order = { snapshot, request, started, signal: doomed.signal, begun: [] };
    const attempts = Array.from({ length: request.count }, () => this.#fork(order));
    for (const attempt of attempts) attempt.catch((error: unknown) => doomed.abort(error));
    const results = await Promise.allSettled(attempts);
    request.signal?.removeEventListener("abort", onAbort);
    if (!doomed.signal.aborted) {
      return results.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []));
    }
    await this.#endSpawn(order);
    throw doomed.signal.reason;
  }

  async #endSpawn({ begun }: ForkOrder): Promise<void> {
    const detail = "another child of its spawn failed, or nobody waits for them any more";
    await Promise.allSettled(begun.map((each) => each.kill({ reason: "spawn_failed", detail })));
  }

  #fork(order: ForkOrder): Promise<SpawnedSandbox> {
    const { snapshot, request, started, signal } = order;
    return this.#restores.run(async () => {
      this.#requireOpen();
      signal.throwIfAborted();
      const { limits: asked, egress = null } = request;
      const id = newSandboxId();
      const plan = { deps: this.#deps, snapshot, id, limits: asked, egress, started };
      const journal = await this.#openJournal(plan);
      let child: ForkedChild | undefined;
      const sandbox = this.#begin(journal, async (_, scope) => {
        child = await forkChild(plan, journal, scope);
        return child;
      });
      order.begun.push(sandbox);
      const onAbort = (): void => void this.#endSpawn(order);
      signal.addEventListener("abort", onAbort, { once: true });
      await sandbox.opened.finally(() => signal.removeEventListener("abort", onAbort));
      if (child === undefined) throw new ForkdError("internal", "an open sandbox has no child");
      const spawned = { info: sandbox.info, timings: child.timings };
      request.onChild?.(spawned);
      return spawned;
    }, signal);
  }

  /** The intent is on disk before anything is taken. */
  async #openJournal(plan: ChildPlan): Promise<Journal> {
    const { paths, owner, sandboxesOutlive, onStep } = this.#deps;
    const record: SandboxRecord = {
      phase: "starting",
      outlives: sandboxesOutlive,
      bootId: owner.bootId,
      info: draftInfo(plan),
      snapshotSha256: plan.snapshot.manifestSha256,
      resources: [],
      diskLayers: [],
      nextLayer: null,
      process: null,
      attachTokens: [],
      end: null,
    };
    const files = { "sandbox.json": renderRecord(record) };
    const workDir = await createWorkDir(paths, { name: plan.id, owner, files });
    onStep("start_recorded");
    return new Journal(workDir, record, onStep);
  }

  #begin(journal: Journal, start: SandboxOptions["start"]): Sandbox {
    const { changed, onSandbox, boundsMs } = this.#options;
    const sandbox: Sandbox = new Sandbox({
      deps: this.#deps,
      journal,
      start,
      onChange: () => {
        changed();
        onSandbox?.(sandbox.info);
      },
      ...(boundsMs === undefined ? {} : { boundsMs }),
    });
    this.#live.set(sandbox.id, sandbox);
    changed();
    void sandbox.ended.then(() => {
      this.#live.delete(sandbox.id);
      const reason = sandbox.info.end?.reason;
      if (reason !== undefined) this.#ends.set(reason, (this.#ends.get(reason) ?? 0) + 1);
      changed();
    });
    return sandbox;
  }

  #requireOpen(): void {
    if (this.#closed) throw new ForkdError("busy", "forkd is shutting down");
  }

  /** Asked once: a VMM that is replaced under a daemon is known from its next start on. */
  #versionOf(name: EngineName): Promise<string> {
    const known = this.#versions.get(name);
    if (known !== undefined) return known;
    const asked = this.#deps.engines.get(name).version();
    this.#versions.set(name, asked);
    asked.catch(() => this.#versions.delete(name));
    return asked;
  }

  async #requireNetwork(snapshot: Snapshot, count: number): Promise<void> {
    requireCard(snapshot);
    await this.#deps.network.requireRoom(count);
  }

  async #requireCompatible(snapshot: Snapshot, request: SpawnRequest): Promise<void> {
    const { tag } = snapshot;
    const { engine } = snapshot.manifest;
    requireScratch(snapshot, request.scratchMib);
    const version = await this.#versionOf(engine.name);
    if (engine.version !== version) {
      const message = `snapshot '${tag}' is of ${engine.name} ${engine.version}, this host has ${version}`;
      throw new ForkdError("snapshot_incompatible", message);
    }
    const min = request.minIsolation;
    if (min !== null && isolationRank[engine.isolation] < isolationRank[min]) {
      const message = `snapshot '${tag}' runs with isolation ${engine.isolation}, less than ${min}`;
      throw new ForkdError("snapshot_incompatible", message, {
        hint: "bake it on a host with working KVM, or ask for less",
      });
    }
  }
}

/** What was baked without a network card cannot get one. */
function requireCard({ tag, manifest }: Snapshot): void {
  if (manifest.machine.nic) return;
  const message = `the guests of snapshot '${tag}' have no network card`;
  throw new ForkdError("snapshot_incompatible", message, {
    hint:
      manifest.engine.name === "qemu"
        ? "bake it again, or fork it without --per-child-netns"
        : "bake it again as root with CAP_NET_ADMIN and CAP_SYS_ADMIN (forkd doctor --only tun), " +
          "or fork it without --per-child-netns",
  });
}

/** `sb-<unix seconds, hex>-<64 random bits, hex>`: sortable by age, not to be guessed. */
function newSandboxId(): SandboxId {
  const seconds = Math.floor(Date.now() / 1000).toString(16);
  return parseSandboxId(`sb-${seconds}-${randomBytes(8).toString("hex")}`);
}
