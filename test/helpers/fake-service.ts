import {
  type EndReason,
  ForkdError,
  type Lineage,
  type SandboxInfo,
  type SnapshotInfo,
  type SnapshotInfoDetail,
} from "@forkd/api";
import { EventLog } from "@forkd/host/fork/events.ts";
import { GuestFiles } from "@forkd/host/fork/files.ts";
import { lineageOf } from "@forkd/host/fork/lineage.ts";
import type {
  BakeRequest,
  ForkService,
  RemoveMode,
  ServiceLoad,
  SpawnedSandbox,
  SpawnRequest,
} from "@forkd/host/fork/service.ts";

const snapshot = (tag: string): SnapshotInfo => ({
  tag,
  dir: `/data/snapshots/${tag}`,
  created_at_unix: 1_700_000_000,
  status: "ready",
  bootable: true,
  engine: "qemu",
});

/** What the API tells of a running sandbox. */
export const sampleSandbox = (id: string, tag: string): SandboxInfo => ({
  id,
  snapshot_tag: tag,
  netns: null,
  guest_addr: "10.42.0.2:8888",
  created_at_unix: 1_700_000_000,
  pid: 4242,
  memory_limit_mib: null,
  has_branched: false,
  last_branch_memory_path: null,
  branch_count: 0,
  state: "running",
  end: null,
  engine: "qemu",
  isolation: "vm-emulated",
  hostname: id,
  spawn_ms: 1.5,
  limits: {
    memory_limit_mib: null,
    cpu_limit: null,
    pids_limit: 256,
    io_read_bps: null,
    io_write_bps: null,
    not_in_force: [],
  },
  identity: null,
});

const timings = { processMs: 1, restoredMs: 2, identityMs: 3 };

/** A service without machines: what it holds is in its maps, and `fault` makes its work fail. */
export class FakeService implements ForkService {
  readonly snapshots = new Map<string, SnapshotInfo>([["base", snapshot("base")]]);
  readonly sandboxes = new Map<string, SandboxInfo>();
  readonly ended = new Map<string, SandboxInfo>();
  readonly spawnRequests: SpawnRequest[] = [];
  readonly bakeRequests: BakeRequest[] = [];
  readonly removals: RemoveMode[] = [];
  /** Thrown by spawn, exec, eval and ping. */
  fault: unknown;
  /** What exec, eval and ping wait for before they answer. */
  hold: Promise<void> = Promise.resolve();
  /** How many of those are under way, and how many were given up by their callers. */
  working = 0;
  abandoned = 0;
  closedWith: string | undefined;
  readonly events = new EventLog();
  readonly files = new GuestFiles(async (id) => {
    await this.#work();
    return this.#missing("sandbox", id);
  });

  async listSnapshots(): Promise<SnapshotInfo[]> {
    return [...this.snapshots.values()];
  }

  async bake(request: BakeRequest): Promise<SnapshotInfo> {
    this.bakeRequests.push(request);
    await this.#work();
    const made = snapshot(request.tag);
    this.snapshots.set(request.tag, made);
    return made;
  }

  async importImage(path: string) {
    return { path, sha256: "0".repeat(64), ref: path, env: {}, user: "", workdir: "" };
  }

  /** As at first, but for what was asked. */
  reset(): void {
    this.snapshots.set("base", snapshot("base"));
  }

  async deleteSnapshot(tag: string, mode: RemoveMode = "refuse"): Promise<void> {
    this.removals.push(mode);
    if (!this.snapshots.delete(tag)) this.#missing("snapshot", tag);
  }

  pack(): Promise<never> {
    throw new ForkdError("internal", "this service packs nothing");
  }

  unpack(): Promise<never> {
    throw new ForkdError("internal", "this service unpacks nothing");
  }

  async snapshotInfo(tag: string): Promise<SnapshotInfoDetail> {
    const info = this.snapshots.get(tag) ?? this.#missing("snapshot", tag);
    return {
      ...info,
      memory_logical_bytes: 4096,
      memory_physical_bytes: 4096,
      memory_data_bytes: 4096,
      vmstate_bytes: 1,
      chain_depth: 0,
      ancestors: [],
      dependents: [],
    };
  }

  async compactSnapshot(from: string, to: string): Promise<SnapshotInfo> {
    if (!this.snapshots.has(from)) this.#missing("snapshot", from);
    const made = { ...snapshot(to), branched_from: `compact:${from}` };
    this.snapshots.set(to, made);
    return made;
  }

  async lineage(): Promise<Lineage> {
    return lineageOf([...this.snapshots.values()], this.listSandboxes());
  }

  branchesInFlight(): number {
    return 0;
  }

  async branch(id: string): Promise<SnapshotInfo> {
    await this.#work();
    const made = snapshot(`branch-${id}`);
    this.snapshots.set(made.tag, made);
    return made;
  }

  async spawn(request: SpawnRequest): Promise<SpawnedSandbox[]> {
    this.spawnRequests.push(request);
    await this.#work(request.signal);
    if (!this.snapshots.has(request.tag)) this.#missing("snapshot", request.tag);
    return Array.from({ length: request.count }, (_, index) => {
      const info = sampleSandbox(`sb-6553f100-${this.sandboxes.size}-${index}`, request.tag);
      this.sandboxes.set(info.id, info);
      return { info, timings };
    });
  }

  listSandboxes(): SandboxInfo[] {
    return [...this.sandboxes.values()];
  }

  load(): ServiceLoad {
    const restores = { running: 2, waiting: 5, places: 16, waitingMax: 1000 };
    return { restores, ends: new Map([["oom" as const, 3]]) };
  }

  async storage() {
    const [dataDir, snapshotsDir] = ["/data", "/data/snapshots"];
    return { dataDir, snapshotsDir, freeBytes: 3 * 1024 ** 3, totalBytes: 9 * 1024 ** 3 };
  }

  async limitSupport() {
    return [
      { limit: "memory_limit_mib" as const, controller: "memory", reason: null },
      { limit: "io_write_bps" as const, controller: "io", reason: "no disk" },
    ];
  }

  async listEndedSandboxes(): Promise<SandboxInfo[]> {
    return [...this.ended.values()].reverse();
  }

  async getSandbox(id: string): Promise<SandboxInfo> {
    return this.#known(id);
  }

  async sandboxLog(id: string, lines?: number): Promise<string> {
    this.#known(id);
    return `the last ${lines ?? "all"} of ${id}\n`;
  }

  async *followLog(id: string): AsyncGenerator<string, void> {
    yield await this.sandboxLog(id);
  }

  async kill(id: string): Promise<void> {
    const info = this.#known(id);
    this.endAs(info, "killed");
  }

  /** Moves a sandbox to those that are remembered. */
  endAs(info: SandboxInfo, reason: EndReason): void {
    const end = info.end ?? { reason, at_unix_ms: 1_700_000_000_000, detail: "for a test" };
    this.sandboxes.delete(info.id);
    this.ended.set(info.id, { ...info, state: "ended", end });
  }

  #known(id: string): SandboxInfo {
    return this.sandboxes.get(id) ?? this.ended.get(id) ?? this.#missing("sandbox", id);
  }

  async ping(id: string) {
    this.#known(id);
    await this.#work();
    return {
      pong: true as const,
      numpy_version: "2.0.0",
      pid: 7,
      agent_lang: "c",
      warmup_ready: true,
      agent_version: "1",
      agent_rtt_us: 120,
    };
  }

  async exec(id: string, request: { readonly args: readonly string[] }, signal?: AbortSignal) {
    this.#known(id);
    await this.#work(signal);
    return {
      stdout: `${request.args.join(" ")}\n`,
      stderr: "",
      exit_code: 0,
      signal: null,
      timed_out: false,
      truncated: false,
      error: null,
      duration_ms: 1,
    };
  }

  async eval(id: string, request: { readonly code: string }, signal?: AbortSignal) {
    this.#known(id);
    await this.#work(signal);
    return {
      result: request.code,
      result_json: null,
      stdout: "",
      stderr: "",
      error: null,
      traceback: null,
      exit_code: 0,
      timed_out: false,
      duration_ms: 1,
    };
  }

  /** What streamed code does; tests put their own here. */
  readonly evalStreamed: ForkService["evalStreamed"] = async (id, request, { feed, signal }) => {
    this.#known(id);
    feed.push("stdout", Buffer.from("printed\n"));
    const { stdout, stderr, ...end } = await this.eval(id, request, signal);
    return { ...end, truncated: feed.truncated };
  };

  /** What an exec stream talks to; tests put their own here. */
  execs: Pick<ForkService, "openExec" | "listExecs" | "deleteExec"> = {
    openExec: () => Promise.reject(new ForkdError("exec_failed", "this service runs nothing")),
    listExecs: async () => [],
    deleteExec: async (_id, exec) => {
      throw new ForkdError("exec_not_found", `no command has the id ${exec}`);
    },
  };

  readonly openExec: ForkService["openExec"] = async (id, request, sink) => {
    this.#known(id);
    return await this.execs.openExec(id, request, sink);
  };

  readonly listExecs: ForkService["listExecs"] = async (id) => {
    this.#known(id);
    return await this.execs.listExecs(id);
  };

  readonly deleteExec: ForkService["deleteExec"] = async (id, exec) => {
    this.#known(id);
    await this.execs.deleteExec(id, exec);
  };

  async close(sandboxes: "detach" | "kill"): Promise<void> {
    this.closedWith = sandboxes;
  }

  async #work(signal?: AbortSignal): Promise<void> {
    this.working += 1;
    const aborted = Promise.withResolvers<never>();
    signal?.addEventListener("abort", () => {
      this.abandoned += 1;
      aborted.reject(signal.reason);
    });
    try {
      await Promise.race([this.hold, aborted.promise]);
    } finally {
      this.working -= 1;
    }
    if (this.fault !== undefined) throw this.fault;
  }

  #missing(what: "snapshot" | "sandbox", name: string): never {
    throw new ForkdError(`${what}_not_found`, `${what} '${name}' not found`);
  }
}
