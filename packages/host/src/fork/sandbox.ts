import {
  ForkdError,
  parseSandboxId,
  type SandboxEnd,
  type SandboxId,
  type SandboxInfo,
  toForkdError,
} from "@forkd/api";
import type { Vm, VmEnd } from "../engine/engine.ts";
import { orAborted, withDeadline } from "../lib/deadline.ts";
import { type Child, StartFailure, type StartScope } from "./child.ts";
import type { ForkDeps } from "./deps.ts";
import { endCauseOf } from "./end-cause.ts";
import { giveBack } from "./give-back.ts";
import type { Journal } from "./journal.ts";
import {
  type EndCause,
  Lifecycle,
  type SandboxEvent,
  type StateBounds,
  stateBoundsMs,
} from "./lifecycle.ts";
import { endProcessesIn } from "./work-dir.ts";

/** A look at what the kernel knows of a VMM's end. */
const causeTimeoutMs = 1_000;
/** What a start that was told to stop may take to notice. */
const startStopMs = 20_000;

/** What a branch works with. */
export interface BranchScope {
  /** Aborts when the sandbox ends, or the branch has taken too long. */
  readonly signal: AbortSignal;
  /** Changes what is told of the sandbox, on disk first. */
  readonly update: (change: Partial<SandboxInfo>) => Promise<void>;
}

export interface SandboxOptions {
  readonly deps: ForkDeps;
  readonly journal: Journal;
  readonly start: (journal: Journal, scope: StartScope) => Promise<Child>;
  /** Called after every change of {@link Sandbox.info}. */
  readonly onChange: () => void;
  readonly boundsMs?: StateBounds;
}

/**
 * One sandbox, from the intent to start it to the last trace of it. All that happens to it goes
 * through its {@link Lifecycle}.
 */
export class Sandbox {
  readonly id: SandboxId;
  /** The child, once it may be used. Rejects with why it never will. */
  readonly opened: Promise<Child>;
  /** Resolves when it begins to end. */
  readonly over: Promise<SandboxEnd>;
  /** Resolves when it has ended; to what could not be given back, if anything. */
  readonly ended: Promise<ForkdError | undefined>;

  readonly #options: SandboxOptions;
  readonly #lifecycle: Lifecycle;
  readonly #opening = Promise.withResolvers<Child>();
  readonly #over = Promise.withResolvers<SandboxEnd>();
  readonly #ending = Promise.withResolvers<ForkdError | undefined>();
  readonly #abort = new AbortController();
  readonly #starting: Promise<void>;
  #vm: Vm | undefined;
  #vmEnd: VmEnd | undefined;
  #child: Child | undefined;
  #branch: AbortController | undefined;
  #cause: EndCause = { reason: "killed", detail: "" };
  #failure: ForkdError | undefined;
  #end: SandboxEnd | null = null;
  #problem: ForkdError | undefined;
  #released = false;
  #detached = false;

  /** Begins to start at once. */
  constructor(options: SandboxOptions) {
    this.#options = options;
    this.id = parseSandboxId(options.journal.record.info.id);
    this.opened = this.#opening.promise;
    this.opened.catch(() => undefined);
    this.over = this.#over.promise;
    this.ended = this.#ending.promise;
    this.#lifecycle = new Lifecycle({
      id: this.id,
      boundsMs: options.boundsMs ?? stateBoundsMs,
      onEnter: (state, event) => {
        if (state === "ending") this.#beginEnd(event);
        else if (state === "ended") this.#finish();
        else if (event === "overdue") this.#giveUpBranch();
        options.onChange();
      },
    });
    this.#starting = this.#start();
  }

  get info(): SandboxInfo {
    const { state } = this.#lifecycle;
    return { ...this.#options.journal.record.info, state, end: this.#end };
  }

  /** Ends it, in whatever state it is, and resolves when it has. Throws what could not be ended. */
  async kill(cause: EndCause): Promise<void> {
    this.#apply("kill", cause);
    const problem = await this.ended;
    if (problem !== undefined) throw problem;
  }

  /**
   * Runs `work`, the only branch of this sandbox at that time, while execs go on. The VM runs again
   * when it throws. Throws sandbox_busy, sandbox_ended (also when it ends meanwhile),
   * deadline_exceeded.
   */
  async branch<T>(work: (child: Child, scope: BranchScope) => Promise<T>): Promise<T> {
    this.#lifecycle.apply("branch");
    const child = this.#child;
    if (child === undefined) throw new ForkdError("internal", `${this.id} runs without a child`);
    const branch = new AbortController();
    this.#branch = branch;
    const { signal } = branch;
    const scope: BranchScope = { signal, update: (change) => this.#update(change) };
    try {
      return await orAborted(work(child, scope), signal);
    } catch (error) {
      await this.#resume(child);
      throw error;
    } finally {
      if (this.#branch === branch) {
        this.#branch = undefined;
        this.#lifecycle.apply("branched");
      }
    }
  }

  /** Leaves it running, for its next owner. */
  detach(): void {
    this.#detached = true;
    this.#lifecycle.detach();
    this.#child?.agent.close();
  }

  async #start(): Promise<void> {
    const { journal, start } = this.#options;
    const { signal } = this.#abort;
    try {
      const child = await start(journal, { signal, holdVm: (vm) => this.#holdVm(vm) });
      this.#child = child;
      void child.agent.lost.then((reason) => this.#agentLost(reason));
      if (this.#lifecycle.apply("opened")) this.#opening.resolve(child);
      else child.agent.close();
      if (this.#vmEnd !== undefined) await this.#died(this.#vmEnd);
    } catch (error) {
      await this.#startFailed(error);
    }
    // It ended by its deadline while this start hung: nobody else stops what came of it.
    if (this.#lifecycle.state === "ended") await this.#vm?.stop();
  }

  async #startFailed(error: unknown): Promise<void> {
    const failure = error instanceof StartFailure ? error : new StartFailure("spawn_failed", error);
    const { reason, problem } = failure;
    this.#failure = problem;
    const cause =
      this.#vmEnd === undefined || this.#vmEnd.stopped
        ? { reason, detail: problem.message }
        : await this.#causeOf(this.#vmEnd);
    this.#apply("failed", cause);
  }

  #holdVm(vm: Vm): void {
    this.#vm = vm;
    void vm.ended.then((end) => this.#died(end));
    // It was ended while its VM was being made.
    if (this.#abort.signal.aborted) void vm.stop().catch(() => undefined);
  }

  async #died(end: VmEnd): Promise<void> {
    this.#vmEnd = end;
    // A start notices it too, and says it better.
    if (this.#detached || this.#lifecycle.state === "starting") return;
    this.#apply("died", await this.#causeOf(end));
  }

  /** A VM whose agent cannot be talked to is of no use, and may be up to something. */
  #agentLost({ message }: ForkdError): void {
    if (!this.#detached) this.#apply("kill", { reason: "agent_failed", detail: message });
  }

  async #causeOf(end: VmEnd): Promise<EndCause> {
    try {
      const cause = endCauseOf(this.#options.journal.record, end);
      return await withDeadline(cause, causeTimeoutMs, "the cause of a VMM's end");
    } catch (error) {
      return { reason: "engine_crash", detail: `its VMM ended: ${toForkdError(error).message}` };
    }
  }

  #apply(event: SandboxEvent, cause: EndCause): void {
    if (this.#end === null) this.#cause = cause;
    this.#lifecycle.apply(event);
  }

  #beginEnd(event: SandboxEvent): void {
    const cause = event === "overdue" ? this.#overdueCause() : this.#cause;
    this.#end = { ...cause, at_unix_ms: Date.now() };
    this.#over.resolve(this.#end);
    const ended = endedError(this.id, this.#end);
    this.#opening.reject(this.#failure ?? ended);
    this.#abort.abort(ended);
    this.#branch?.abort(ended);
    this.#child?.agent.close();
    void this.#release(this.#end);
  }

  #overdueCause(): EndCause {
    return this.#vm === undefined
      ? { reason: "spawn_failed", detail: "its VM was not there in time" }
      : { reason: "identity_timeout", detail: "its guest did not prove its identity in time" };
  }

  async #release(end: SandboxEnd): Promise<void> {
    const { deps, journal } = this.#options;
    try {
      const written = journal.write({ phase: "ending", end });
      // Without the note, a next owner calls it lost instead: no reason to let it run.
      await written.catch((error: unknown) => this.#log("its end is not on disk", error));
      deps.onStep("end_intended");
      await this.#stopVm();
      deps.onStep("vmm_stopped");
      const { resources, outlives } = journal.record;
      const info: SandboxInfo = { ...this.info, state: "ended" };
      await giveBack(deps, { workDir: journal.workDir, resources, info: outlives ? info : null });
    } catch (error) {
      this.#problem = toForkdError(error);
      this.#log("a sandbox left something behind", error);
    }
    this.#released = true;
    this.#lifecycle.apply("released");
  }

  async #stopVm(): Promise<void> {
    if (this.#vm === undefined) await endProcessesIn(this.#options.journal.workDir);
    else await this.#vm.stop();
    await withDeadline(this.#starting, startStopMs, `stopping the start of ${this.id}`);
    await this.#vm?.stop();
  }

  /** Comes by the release, or by the deadline when that hangs. */
  #finish(): void {
    if (!this.#released) {
      this.#problem = new ForkdError("deadline_exceeded", `${this.id} does not end`, {
        hint: "its VMM may be stuck in the kernel; see the daemon's log and: forkd leaks",
      });
      this.#log("a sandbox does not end", this.#problem);
    }
    this.#ending.resolve(this.#problem);
  }

  #giveUpBranch(): void {
    const late = new ForkdError("deadline_exceeded", `the branch of ${this.id} took too long`);
    this.#branch?.abort(late);
    this.#branch = undefined;
  }

  async #resume({ vm }: Child): Promise<void> {
    if (this.#end !== null) return;
    await vm.resume().catch((error: unknown) => this.#log("a VM is not resumed", error));
  }

  async #update(change: Partial<SandboxInfo>): Promise<void> {
    const { journal, onChange } = this.#options;
    await journal.write({ info: { ...journal.record.info, ...change } });
    onChange();
  }

  #log(message: string, cause: unknown): void {
    this.#options.deps.log.error(message, { id: this.id, cause });
  }
}

/** What callers of a sandbox that has ended are told. */
export function endedError(id: SandboxId, end: SandboxEnd): ForkdError {
  const at = new Date(end.at_unix_ms).toISOString();
  const why = end.detail === "" ? end.reason : `${end.reason}: ${end.detail}`;
  return new ForkdError("sandbox_ended", `sandbox '${id}' ended at ${at} (${why})`);
}
