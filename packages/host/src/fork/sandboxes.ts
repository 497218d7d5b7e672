import { randomBytes } from "node:crypto";
import {
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
  toForkdError,
} from "@forkd/api";
import { evaluate, exec, ping } from "../agent/guest.ts";
import { Semaphore } from "../lib/semaphore.ts";
import type { Snapshot } from "../store/snapshots.ts";
import { adoptSandbox } from "./adopt.ts";
import { type Child, type ForkedChild, forkChild } from "./child.ts";
import type { ForkDeps } from "./deps.ts";
import type { SpawnedSandbox, SpawnRequest } from "./service.ts";
import { orphanedWorkDirs, reapWorkDir, removeWorkDir } from "./work-dir.ts";

const pingTimeoutMs = 3_000;
const isolationRank = { "vm-emulated": 0, vm: 1 } as const;

/** One child of a spawn. */
interface ForkOrder {
  readonly snapshot: Snapshot;
  readonly request: SpawnRequest;
  /** When the spawn began, as performance.now(). */
  readonly started: number;
  /** Aborts when the spawn is given up. */
  readonly signal: AbortSignal;
}

/** The live sandboxes of one owner. */
export class Sandboxes {
  readonly #deps: ForkDeps;
  readonly #changed: () => void;
  readonly #live = new Map<SandboxId, Child>();
  readonly #restores = new Semaphore({
    places: limits.concurrentRestoresMax,
    waitingMax: limits.queuedRestoresMax,
    what: "restores",
  });
  #engineVersion: Promise<string> | undefined;
  readonly #forgetting = new Map<SandboxId, Promise<void>>();
  readonly #forking = new Set<Promise<unknown>>();
  #closed = false;
  #detached = false;

  /** `changed` is called after every change of what `list` gives. */
  constructor(deps: ForkDeps, changed: () => void) {
    this.#deps = deps;
    this.#changed = changed;
  }

  /** All or nothing. */
  async spawn(request: SpawnRequest): Promise<SpawnedSandbox[]> {
    const started = performance.now();
    const snapshot = await this.#deps.store.open(request.tag);
    await this.#requireCompatible(snapshot, request);
    this.#restores.requireRoom(request.count);
    // The first failure, or the caller's: what still waits need not begin.
    const doomed = new AbortController();
    const onAbort = (): void => doomed.abort(request.signal?.reason);
    request.signal?.addEventListener("abort", onAbort, { once: true });
    if (request.signal?.aborted) onAbort();
    const attempts = Array.from({ length: request.count }, () =>
      this.#fork({ snapshot, request, started, signal: doomed.signal }),
    );
    for (const attempt of attempts) {
      attempt.catch((error: unknown) => doomed.abort(error));
      this.#track(attempt);
    }
    const results = await Promise.allSettled(attempts);
    request.signal?.removeEventListener("abort", onAbort);
    const children = results.filter((result) => result.status === "fulfilled");
    if (doomed.signal.aborted) {
      // Not kill(): one that died meanwhile has no id any more, and must not hide the reason.
      await Promise.allSettled(children.map(({ value }) => this.#end(value)));
      throw doomed.signal.reason;
    }
    return children.map(({ value: { info, timings } }) => ({ info, timings }));
  }

  /** Takes over what an owner that is gone has left running, and ends what cannot be. */
  async adoptAll(): Promise<void> {
    for (const workDir of await orphanedWorkDirs(this.#deps.paths)) {
      try {
        const { vm, session, record } = await adoptSandbox(this.#deps, workDir);
        const { info } = record;
        this.#keep({ id: parseSandboxId(info.id), vm, session, workDir, info });
        this.#deps.log.info("adopted a sandbox", { id: info.id });
      } catch (error) {
        const { code, message } = toForkdError(error);
        this.#deps.log.warn("a sandbox cannot be adopted", { workDir, code, message });
        await reapWorkDir(workDir, this.#deps);
      }
    }
  }

  /** Leaves every sandbox running, for the next owner of the data directory. */
  async detachAll(): Promise<void> {
    this.#closed = true;
    await Promise.allSettled(this.#forking);
    this.#detached = true;
    for (const { session } of this.#live.values()) session.close();
  }

  list(): SandboxInfo[] {
    return [...this.#live.values()].map((child) => child.info);
  }

  get(id: SandboxId): SandboxInfo {
    return this.#find(id).info;
  }

  async kill(id: SandboxId): Promise<void> {
    const child = this.#find(id);
    await this.#end(child);
  }

  /** Ends every sandbox, those that are still being forked too. */
  async killAll(): Promise<void> {
    this.#closed = true;
    await Promise.allSettled(this.#forking);
    await Promise.all([...this.#live.values()].map((child) => this.#end(child)));
    await Promise.allSettled(this.#forgetting.values());
  }

  async ping(id: SandboxId): Promise<Pong> {
    const { session } = this.#find(id);
    const started = performance.now();
    const pong = await ping(session, pingTimeoutMs);
    const rttUs = Math.round((performance.now() - started) * 1000);
    const { agent } = await session.hello;
    return { ...pong, agent_version: agent, agent_rtt_us: rttUs };
  }

  exec(id: SandboxId, request: ExecRequest, signal?: AbortSignal): Promise<ExecResult> {
    return exec(this.#find(id).session, request, signal);
  }

  eval(id: SandboxId, request: EvalRequest, signal?: AbortSignal): Promise<EvalResult> {
    return evaluate(this.#find(id).session, request, signal);
  }

  #find(id: SandboxId): Child {
    const child = this.#live.get(id);
    if (child !== undefined) return child;
    throw new ForkdError("sandbox_not_found", `sandbox '${id}' not found`);
  }

  #fork({ snapshot, request, started, signal }: ForkOrder): Promise<ForkedChild> {
    return this.#restores.run(async () => {
      this.#requireOpen();
      signal.throwIfAborted();
      const { limits: asked } = request;
      const plan = { deps: this.#deps, snapshot, id: newSandboxId(), limits: asked, started };
      const child = await forkChild(plan);
      this.#keep(child);
      if (this.#closed) await this.#end(child);
      this.#requireOpen();
      request.onChild?.({ info: child.info, timings: child.timings });
      return child;
    }, signal);
  }

  #track(attempt: Promise<unknown>): void {
    this.#forking.add(attempt);
    const done = (): void => void this.#forking.delete(attempt);
    attempt.then(done, done);
  }

  #keep(child: Child): void {
    this.#live.set(child.id, child);
    this.#changed();
    void child.vm.ended.then(() => this.#forgetDead(child));
  }

  #requireOpen(): void {
    if (this.#closed) throw new ForkdError("busy", "forkd is shutting down");
  }

  async #end(child: Child): Promise<void> {
    await child.vm.stop();
    await this.#forget(child);
  }

  async #forgetDead(child: Child): Promise<void> {
    if (this.#detached) return;
    try {
      await this.#forget(child);
    } catch (error) {
      this.#deps.log.error("a dead sandbox left its directory", { id: child.id, error });
    }
  }

  /** Idempotent: a VM that is killed comes here twice, by the kill and by its end. */
  #forget(child: Child): Promise<void> {
    const begun = this.#forgetting.get(child.id);
    if (begun !== undefined) return begun;
    const forgetting = this.#clean(child).finally(() => this.#forgetting.delete(child.id));
    this.#forgetting.set(child.id, forgetting);
    return forgetting;
  }

  async #clean(child: Child): Promise<void> {
    this.#live.delete(child.id);
    this.#changed();
    child.session.close();
    await this.#deps.limits.release(child.id);
    await removeWorkDir(child.workDir, this.#deps.owner);
  }

  async #requireCompatible({ tag, manifest }: Snapshot, request: SpawnRequest): Promise<void> {
    const { engine } = manifest;
    this.#engineVersion ??= this.#deps.engine.version();
    const version = await this.#engineVersion;
    if (engine.name !== this.#deps.engine.name || engine.version !== version) {
      const ours = `${this.#deps.engine.name} ${version}`;
      const message = `snapshot '${tag}' is of ${engine.name} ${engine.version}, this host has ${ours}`;
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

/** `sb-<unix seconds, hex>-<64 random bits, hex>`: sortable by age, not to be guessed. */
function newSandboxId(): SandboxId {
  const seconds = Math.floor(Date.now() / 1000).toString(16);
  return parseSandboxId(`sb-${seconds}-${randomBytes(8).toString("hex")}`);
}
