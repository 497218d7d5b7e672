import type { EvalResult, ExecResult, Pong, SandboxInfo, SnapshotInfo } from "@forkd/api";
import { type BranchOptions, branchBody } from "./branch.ts";
import { Client, type ClientOptions } from "./client.ts";
import type { CallControl } from "./deadline.ts";
import { type EvalOptions, evalWith } from "./evals.ts";
import { type SpawnOptions, spawnBody } from "./spawn.ts";

/** Upstream calls the daemon's address `baseUrl`; the rest is the client's. */
export interface ControllerOptions extends ClientOptions {
  /** The same as `url`. */
  readonly baseUrl?: string | undefined;
}

/** Options of any class of this package that talks to a daemon. */
export interface ConnectOptions extends ControllerOptions {
  /** What to talk through; the other options of the connection are not looked at then. */
  readonly client?: Client | Controller | undefined;
}

/** The client that options stand for. Throws bad_request for an address that is none. */
export function connect({ client, baseUrl, ...options }: ConnectOptions = {}): Client {
  if (client instanceof Controller) return client.client;
  return client ?? new Client(baseUrl === undefined ? options : { ...options, url: baseUrl });
}

/** How a command runs in the guest. Absent means the daemon's default. */
export interface ExecOptions extends CallControl {
  /** Seconds until the command is killed. Default: 30. */
  readonly timeoutSecs?: number | undefined;
  readonly env?: Readonly<Record<string, string>> | undefined;
  readonly cwd?: string | undefined;
  readonly user?: string | undefined;
  /** Text for the command's standard input, which is closed after it. */
  readonly stdin?: string | undefined;
}

const execTimeoutDefaultSecs = 30;

/**
 * The daemon's calls under the names of upstream's TypeScript client, with its arguments. Each may
 * throw ControllerError for what the daemon refuses, and ForkdError with daemon_unreachable or
 * deadline_exceeded. What upstream lacks is on {@link Controller.client}.
 */
export class Controller {
  readonly client: Client;

  /** Throws bad_request for an address that is not http or https. */
  constructor(options: ConnectOptions = {}) {
    this.client = connect(options);
  }

  listSnapshots(control: CallControl = {}): Promise<SnapshotInfo[]> {
    return this.client.listSnapshots(control);
  }

  async deleteSnapshot(tag: string, control: CallControl = {}): Promise<void> {
    await this.client.deleteSnapshot({ ...control, params: { tag } });
  }

  /** Forks `n` children; resolves when each has a proven identity of its own. */
  spawnSandboxes(options: SpawnOptions): Promise<SandboxInfo[]> {
    return this.client.createSandboxes({ ...controlOf(options), body: spawnBody(options) });
  }

  listSandboxes(control: CallControl = {}): Promise<SandboxInfo[]> {
    return this.client.listSandboxes(control);
  }

  getSandbox(id: string, control: CallControl = {}): Promise<SandboxInfo> {
    return this.client.getSandbox({ ...control, params: { id } });
  }

  async killSandbox(id: string, control: CallControl = {}): Promise<void> {
    await this.client.deleteSandbox({ ...control, params: { id } });
  }

  /** Makes a snapshot of a running sandbox, which runs on. */
  branchSandbox(id: string, options: BranchOptions = {}): Promise<SnapshotInfo> {
    const body = branchBody(options);
    return this.client.branchSandbox({ ...controlOf(options), params: { id }, body });
  }

  /** Runs a command; one that fails is told by its exit_code, not by an error. */
  execCommand(id: string, args: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
    const { timeoutSecs, env, cwd, user, stdin } = options;
    const body = {
      args: [...args],
      timeout_secs: timeoutSecs ?? execTimeoutDefaultSecs,
      ...(env !== undefined && { env: { ...env } }),
      ...(cwd !== undefined && { cwd }),
      ...(user !== undefined && { user }),
      ...(stdin !== undefined && { stdin }),
    };
    return this.client.execSandbox({ ...controlOf(options), params: { id }, body });
  }

  /**
   * Evaluates code in the guest's warm interpreter; what it raises is in the result's error. With
   * `onOutput` that is told what the code prints, and both outputs of the result are empty.
   */
  evalCode(id: string, code: string, options: EvalOptions = {}): Promise<EvalResult> {
    const { timeoutSecs, onOutput } = options;
    if (onOutput !== undefined) {
      return evalWith(this.client, id, { ...options, code, onOutput });
    }
    const body = { code, ...(timeoutSecs !== undefined && { timeout_secs: timeoutSecs }) };
    return this.client.evalSandbox({ ...controlOf(options), params: { id }, body });
  }

  pingSandbox(id: string, control: CallControl = {}): Promise<Pong> {
    return this.client.pingSandbox({ ...control, params: { id } });
  }
}

/** The part of a method's options that is about the call itself. */
export function controlOf({ signal, timeoutMs, retriesMax }: CallControl): CallControl {
  return { signal, timeoutMs, retriesMax };
}
