import type {
  EvalResult,
  ExecInfo,
  ExecResult,
  Pong,
  SandboxInfo,
  SnapshotInfo,
  SnapshotInfoDetail,
} from "@forkd/api";
import { ForkdError } from "@forkd/api";
import type { BranchOptions } from "./branch.ts";
import type { Client } from "./client.ts";
import {
  type ConnectOptions,
  Controller,
  connect,
  controlOf,
  type ExecOptions,
} from "./controller.ts";
import type { CallControl } from "./deadline.ts";
import { GuestEvalError } from "./errors.ts";
import {
  type EvalOptions,
  type EvalProgress,
  type StreamEvalOptions,
  streamEval,
} from "./evals.ts";
import { SandboxFiles } from "./files.ts";
import { type FollowLogOptions, followLog } from "./logs.ts";
import type { GuestProcess } from "./process.ts";
import { findSnapshot, untilReady } from "./ready.ts";
import type { ForkOptions, SpawnOptions } from "./spawn.ts";
import {
  type AttachOptions,
  attachProcess,
  type ProcessOptions,
  startProcess,
} from "./start-process.ts";

/** Whoever can send the calls of a handle. */
type Owner = Client | Controller;

/**
 * One sandbox. One that this program made ends with its scope:
 * `await using sandbox = await Sandbox.create({ snapshotTag })`. One that was looked up does not.
 */
export class Sandbox {
  readonly id: string;
  /** What the daemon said when this handle was made; {@link refresh} asks again. */
  readonly info: SandboxInfo;
  /** Its files: read, write, list, remove. */
  readonly files: SandboxFiles;
  readonly #controller: Controller;
  readonly #isOurs: boolean;
  #isKilled = false;

  /** A handle for a sandbox that is there already; it does not end with its scope. */
  constructor(owner: Owner, info: SandboxInfo, isOurs = false) {
    this.id = info.id;
    this.info = info;
    this.#controller = owner instanceof Controller ? owner : new Controller({ client: owner });
    this.files = new SandboxFiles(this.#controller.client, info.id);
    this.#isOurs = isOurs;
  }

  /** Forks one child of a snapshot. */
  static async create(options: Omit<SpawnOptions, "n"> & ConnectOptions): Promise<Sandbox> {
    const [sandbox] = await spawn(connect(options), { ...options, n: 1 });
    if (sandbox !== undefined) return sandbox;
    throw new ForkdError("internal", "the daemon answered a spawn of one child with none");
  }

  /** Throws sandbox_not_found. */
  static async get(id: string, options: ConnectOptions & CallControl = {}): Promise<Sandbox> {
    const client = connect(options);
    return new Sandbox(client, await client.getSandbox({ ...controlOf(options), params: { id } }));
  }

  /** Every sandbox that runs; with `ended` also those that ended, the latest first. */
  static async list(
    options: ConnectOptions & CallControl & { readonly ended?: boolean } = {},
  ): Promise<Sandbox[]> {
    const client = connect(options);
    const query = options.ended === true ? { ended: true } : {};
    const infos = await client.listSandboxes({ ...controlOf(options), query });
    return infos.map((info) => new Sandbox(client, info));
  }

  /** Forks a child, runs `work` with it and kills it, whatever happens. */
  static async with<T>(
    options: Parameters<typeof Sandbox.create>[0],
    work: (sandbox: Sandbox) => Promise<T> | T,
  ): Promise<T> {
    const sandbox = await Sandbox.create(options);
    try {
      return await work(sandbox);
    } finally {
      await sandbox.kill();
    }
  }

  /**
   * Runs a command: words as they are, or one text for the guest's `/bin/sh -c`. A command that
   * fails is told by its exit_code, not by an error.
   */
  exec(command: string | readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
    const args = typeof command === "string" ? ["/bin/sh", "-c", command] : command;
    return this.#controller.execCommand(this.id, args, options);
  }

  /**
   * Starts a command and returns while it runs: input, outputs, signals, a terminal. A text is for
   * `/bin/sh -c`, as with {@link exec}.
   */
  async spawn(
    command: string | readonly string[],
    options: ProcessOptions = {},
  ): Promise<GuestProcess> {
    const args = typeof command === "string" ? ["/bin/sh", "-c", command] : command;
    return await startProcess(this.#controller.client, this.id, { ...options, args });
  }

  /** Returns to a command of {@link spawn}; who was attached to it is detached. */
  async attach(execId: string, options: AttachOptions = {}): Promise<GuestProcess> {
    return await attachProcess(this.#controller.client, this.id, { ...options, execId });
  }

  /** The commands of {@link spawn} that run, and the last that have ended, the newest first. */
  execs(control: CallControl = {}): Promise<ExecInfo[]> {
    return this.#controller.client.listExecs({ ...controlOf(control), params: { id: this.id } });
  }

  /** Kills a command of {@link spawn} and forgets it. Throws exec_not_found. */
  async killExec(execId: string, control: CallControl = {}): Promise<void> {
    const params = { id: this.id, exec_id: execId };
    await this.#controller.client.deleteExec({ ...controlOf(control), params });
  }

  /**
   * The value of code in the guest's warm interpreter, which keeps its state: decoded when it can
   * be written as JSON, else the interpreter's own text for it. Throws GuestEvalError when the code
   * fails.
   */
  async eval(code: string, options: EvalOptions = {}): Promise<unknown> {
    const answer = await this.evaluate(code, options);
    if (answer.error !== null) throw new GuestEvalError(answer);
    return answer.result_json === null ? answer.result : JSON.parse(answer.result_json);
  }

  /** Like {@link eval}, with all that the guest answers; code that fails is no error here. */
  evaluate(code: string, options: EvalOptions = {}): Promise<EvalResult> {
    return this.#controller.evalCode(this.id, code, options);
  }

  /**
   * Evaluates code and gives what it prints as it comes: `{ type: "stdout", text }`, `stderr`, and
   * last `{ type: "result", ... }`. The code waits for who does not read; to leave the loop, or to
   * abort, interrupts it.
   */
  streamEval(code: string, options: StreamEvalOptions = {}): AsyncGenerator<EvalProgress, void> {
    return streamEval(this.#controller.client, this.id, { ...options, code });
  }

  /**
   * The last that its VMM printed, then what it prints as it comes, until the sandbox has ended.
   * Not the guest's own logs: those are in the guest.
   */
  followLog(options: FollowLogOptions = {}): AsyncGenerator<string, void> {
    return followLog(this.#controller.client, this.id, options);
  }

  ping(control: CallControl = {}): Promise<Pong> {
    return this.#controller.pingSandbox(this.id, control);
  }

  /** Makes a snapshot of this sandbox, which runs on. */
  async branch(options: BranchOptions = {}): Promise<Snapshot> {
    const info = await this.#controller.branchSandbox(this.id, options);
    return new Snapshot(this.#controller, info, true);
  }

  /** A handle with what the daemon says now. Throws sandbox_not_found. */
  async refresh(control: CallControl = {}): Promise<Sandbox> {
    const info = await this.#controller.getSandbox(this.id, control);
    return new Sandbox(this.#controller, info, this.#isOurs);
  }

  /** Ends the sandbox; one that is gone already is no error. */
  async kill(control: CallControl = {}): Promise<void> {
    if (this.#isKilled) return;
    await unlessGone(this.#controller.killSandbox(this.id, control), "sandbox_not_found");
    this.#isKilled = true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#isOurs) await this.kill();
  }
}

/** Children that were forked together; `await using` ends all of them. */
export class Sandboxes extends Array<Sandbox> {
  /** What map and filter make of children need not be children. */
  static override get [Symbol.species](): ArrayConstructor {
    return Array;
  }

  /** Tries to end each; throws the first failure after the last has been tried. */
  async [Symbol.asyncDispose](): Promise<void> {
    const ends = await Promise.allSettled(this.map((sandbox) => sandbox.kill()));
    const failure = ends.find((end) => end.status === "rejected");
    if (failure !== undefined) throw failure.reason;
  }
}

async function spawn(client: Client, options: SpawnOptions): Promise<Sandboxes> {
  const controller = new Controller({ client });
  const infos = await controller.spawnSandboxes(options);
  return Sandboxes.from(infos, (info) => new Sandbox(controller, info, true)) as Sandboxes;
}

/** What happens to the snapshots that were made from one that is removed. */
export interface DeleteOptions extends CallControl {
  /** Removes them too. */
  readonly cascade?: boolean | undefined;
  /** Leaves them, though they cannot be forked any more. */
  readonly force?: boolean | undefined;
}

class SnapshotHandle {
  /** What the daemon said when this handle was made; {@link ready} asks again. */
  readonly info: SnapshotInfo;
  readonly #client: Client;
  readonly #isOurs: boolean;

  /** A handle for a snapshot that is there already; it is not removed with its scope. */
  constructor(owner: Owner, info: SnapshotInfo, isOurs = false) {
    Object.assign(this, info);
    this.info = info;
    this.#client = owner instanceof Controller ? owner.client : owner;
    this.#isOurs = isOurs;
  }

  /** Throws snapshot_not_found. */
  static async get(tag: string, options: ConnectOptions & CallControl = {}): Promise<Snapshot> {
    const client = connect(options);
    return new Snapshot(client, await findSnapshot(client, tag, controlOf(options)));
  }

  static async list(options: ConnectOptions & CallControl = {}): Promise<Snapshot[]> {
    const client = connect(options);
    const infos = await client.listSnapshots(controlOf(options));
    return infos.map((info) => new Snapshot(client, info));
  }

  /** Forks children of it: `await using children = await snapshot.fork({ n: 4 })`. */
  fork(options: ForkOptions = {}): Promise<Sandboxes> {
    return spawn(this.#client, { ...options, snapshotTag: this.info.tag });
  }

  /** Waits while it is being written; see untilReady for what it throws. */
  async ready(control: CallControl = {}): Promise<Snapshot> {
    const info = await untilReady(this.#client, this.info.tag, control);
    return new Snapshot(this.#client, info, this.#isOurs);
  }

  /** Its chain, its dependents and its sizes. */
  describe(control: CallControl = {}): Promise<SnapshotInfoDetail> {
    return this.#client.getSnapshotInfo({ ...control, params: { tag: this.info.tag } });
  }

  /** Copies it and its ancestors into one new snapshot, `to`, that needs none of them. */
  async compact(to: string, control: CallControl = {}): Promise<Snapshot> {
    const call = { ...control, params: { tag: this.info.tag }, body: { to } };
    return new Snapshot(this.#client, await this.#client.compactSnapshot(call), true);
  }

  /** Removes it; one that is gone already is no error. Throws snapshot_in_use. */
  async delete(options: DeleteOptions = {}): Promise<void> {
    const { cascade, force } = options;
    const query = { ...(cascade === true && { cascade }), ...(force === true && { force }) };
    const call = { ...controlOf(options), params: { tag: this.info.tag }, query };
    await unlessGone(this.#client.deleteSnapshot(call), "snapshot_not_found");
  }

  toJSON(): SnapshotInfo {
    return this.info;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#isOurs) await this.delete();
  }
}

async function unlessGone(
  work: Promise<unknown>,
  code: "sandbox_not_found" | "snapshot_not_found",
): Promise<void> {
  try {
    await work;
  } catch (error) {
    if (!(error instanceof ForkdError) || error.code !== code) throw error;
  }
}

/**
 * One snapshot: the fields of SnapshotInfo, and what can be done with it. One that this program
 * made is removed with its scope: `await using checkpoint = await sandbox.branch()`. One that was
 * looked up is not.
 */
export type Snapshot = SnapshotHandle & Readonly<SnapshotInfo>;

interface SnapshotClass {
  new (owner: Owner, info: SnapshotInfo, isOurs?: boolean): Snapshot;
  get: typeof SnapshotHandle.get;
  list: typeof SnapshotHandle.list;
}

/** See {@link SnapshotHandle}; the cast adds the fields that its constructor copies. */
export const Snapshot = SnapshotHandle as unknown as SnapshotClass;
