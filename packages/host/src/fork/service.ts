import type {
  BranchBody,
  Egress,
  EndReason,
  EvalEnd,
  EvalRequest,
  EvalResult,
  ExecAttach,
  ExecEnd,
  ExecId,
  ExecInfo,
  ExecRequest,
  ExecResult,
  ExecStart,
  IsolationTier,
  Lineage,
  Pong,
  SandboxId,
  SandboxInfo,
  SnapshotInfo,
  SnapshotInfoDetail,
  SnapshotTag,
} from "@forkd/api";
import type { EvalFeed } from "../agent/eval-feed.ts";
import type { ExecSink, ExecStream } from "../agent/execs.ts";
import type { SemaphoreLoad } from "../lib/semaphore.ts";
import type { PackOrder, PackReport, UnpackOrder, UnpackReport } from "../pack/orders.ts";
import type { RemoveMode } from "../store/snapshots.ts";
import type { AskedLimits } from "./asked-limits.ts";
import type { EventLog } from "./events.ts";
import type { GuestFiles } from "./files.ts";
import type { LimitSupport } from "./limits.ts";

export { EvalFeed, type EvalPiece } from "../agent/eval-feed.ts";
export type { ExecSink, ExecStarted } from "../agent/execs.ts";
export type { RemoveMode } from "../store/snapshots.ts";

/** A fork of `count` children of one snapshot. */
export interface SpawnRequest {
  readonly tag: SnapshotTag;
  /** 1 to limits.spawnCountMax, already checked. */
  readonly count: number;
  readonly limits: AskedLimits;
  readonly minIsolation: IsolationTier | null;
  /** What each may reach by a network of its own; absent: they have none. */
  readonly egress?: Egress;
  /** Each child must have a scratch disk of at least this size. */
  readonly scratchMib?: number;
  /**
   * Called with each child as soon as it can be used, before the others are there. If one of those
   * fails, it is killed all the same.
   */
  readonly onChild?: (child: SpawnedSandbox) => void;
  /** Gives the spawn up: what waits does not begin, what is there is killed. */
  readonly signal?: AbortSignal;
}

/** What a bake starts from. Paths are absolute and exist. */
export interface BakeRequest {
  readonly tag: SnapshotTag;
  readonly image: BakeImage;
  /** Guest kernel to boot; null takes the installed default. */
  readonly kernel: KernelOverride | null;
  readonly memoryMib: number;
  readonly vcpus: number;
  /** Size of the disk that the guest's writes go to; without, they stay in its memory. */
  readonly scratchMib?: number;
  readonly warm: WarmSpec;
  /** Take the place of a snapshot with this tag, once the new one is complete. */
  readonly replace: boolean;
}

/** The read-only root image and how its commands run. */
export interface BakeImage {
  readonly path: string;
  readonly sha256: string;
  /** What the user asked for, for listings. */
  readonly ref: string;
  readonly env: Readonly<Record<string, string>>;
  readonly user: string;
  readonly workdir: string;
}

export interface KernelOverride {
  readonly vmlinuz: string | null;
  readonly initrd: string | null;
}

/** How the parent gets warm before it is frozen. */
export interface WarmSpec {
  readonly runtime: "python" | "node" | null;
  readonly imports: readonly string[];
  readonly command: string | null;
  readonly ready: ReadyProbe | null;
  readonly timeoutMs: number;
}

export type ReadyProbe =
  | { readonly tcp: number }
  | { readonly file: string }
  | { readonly line: string };

/** Called with a sentence for people as a long operation moves on. */
export type Progress = (message: string) => void;

/** When a child of one spawn got where, milliseconds after the spawn began. */
export interface ChildTimings {
  readonly processMs: number;
  readonly restoredMs: number;
  readonly identityMs: number;
}

export interface StorageFacts {
  readonly dataDir: string;
  readonly snapshotsDir: string;
  /** What somebody without privileges may still write. */
  readonly freeBytes: number;
  readonly totalBytes: number;
}

/** How busy a service is. */
export interface ServiceLoad {
  readonly restores: SemaphoreLoad;
  /** Sandboxes that ended, by reason, since the service was opened. */
  readonly ends: ReadonlyMap<EndReason, number>;
}

export interface SpawnedSandbox {
  readonly info: SandboxInfo;
  readonly timings: ChildTimings;
}

/** `silenceMs`: an empty text comes when nothing was printed for so long. */
export interface FollowOptions {
  readonly lines: number | undefined;
  readonly signal: AbortSignal;
  readonly silenceMs: number;
}

/** A command that is shown to somebody. */
export interface OpenExec {
  readonly stream: Omit<ExecStream, "ended">;
  /** How it ended; rejects also when somebody else has attached, or its sandbox has ended. */
  readonly ended: Promise<ExecEnd>;
}

/**
 * All that forkd can do, for whoever drives it: the daemon's routes, or the CLI without a daemon.
 * Every method throws ForkdError. One service owns one data directory's work area at a time.
 */
export interface ForkService {
  listSnapshots(): Promise<SnapshotInfo[]>;
  /** Boots, warms, freezes and publishes; nothing is left behind when it throws. */
  bake(request: BakeRequest, progress: Progress): Promise<SnapshotInfo>;
  /** Copies a root image file into the store, where nobody changes it under its children. */
  importImage(path: string): Promise<BakeImage>;
  /** See SnapshotStore.remove. */
  deleteSnapshot(tag: SnapshotTag, mode?: RemoveMode): Promise<void>;
  snapshotInfo(tag: SnapshotTag): Promise<SnapshotInfoDetail>;
  /** Copies a snapshot and its ancestors into a base of its own. */
  compactSnapshot(from: SnapshotTag, to: SnapshotTag): Promise<SnapshotInfo>;
  lineage(): Promise<Lineage>;
  /** Writes a snapshot with its chain as one file; see packSnapshot. */
  pack(order: PackOrder): Promise<PackReport>;
  /** Takes a pack into the store; see unpackSnapshot. */
  unpack(order: UnpackOrder): Promise<UnpackReport>;

  /** All or nothing: when one child fails, none is left. */
  spawn(request: SpawnRequest): Promise<SpawnedSandbox[]>;
  /** The live ones. */
  listSandboxes(): SandboxInfo[];
  /** Those that have ended and are remembered, the latest first. */
  listEndedSandboxes(): Promise<SandboxInfo[]>;
  load(): ServiceLoad;
  /** The file system that the snapshots are on. */
  storage(): Promise<StorageFacts>;
  /** What this host can enforce, by trying once. */
  limitSupport(): Promise<readonly LimitSupport[]>;
  /** A live one, or one that is remembered. */
  getSandbox(id: SandboxId): Promise<SandboxInfo>;
  /**
   * The end of what its VMM printed, in whole lines, the last `lines` of them; "" when it printed
   * nothing. Throws sandbox_not_found, sandbox_ended when nothing is kept of one that has ended.
   */
  sandboxLog(id: SandboxId, lines?: number): Promise<string>;
  /**
   * The same, then what it prints as it comes, until the sandbox has ended or `signal` aborts.
   * Texts are empty while it is silent.
   */
  followLog(id: SandboxId, options: FollowOptions): AsyncGenerator<string, void>;
  /**
   * Ends the VM and everything that it held, in whatever state it is; returns when it is gone, and
   * at once for one that has ended and is remembered.
   */
  kill(id: SandboxId): Promise<void>;
  /**
   * Makes a snapshot of a running sandbox, which runs on whatever happens. With `wait: false` it
   * returns once the tag is taken; the snapshot is listed as writing, then as ready or failed.
   */
  branch(id: SandboxId, request: BranchBody): Promise<SnapshotInfo>;
  branchesInFlight(): number;
  ping(id: SandboxId): Promise<Pong>;
  /** When `signal` aborts, the command is killed with its process group, and its reason thrown. */
  exec(id: SandboxId, request: ExecRequest, signal?: AbortSignal): Promise<ExecResult>;
  /** Starts a command that outlives whoever it is shown to, or returns to one. */
  openExec(id: SandboxId, request: ExecStart | ExecAttach, sink: ExecSink): Promise<OpenExec>;
  /** Those that run and those that are remembered, the newest first. */
  listExecs(id: SandboxId): Promise<ExecInfo[]>;
  /** Kills one and forgets it. Throws exec_not_found. */
  deleteExec(id: SandboxId, exec: ExecId): Promise<void>;
  /** When `signal` aborts, the code is interrupted as by its timeout, and its reason thrown. */
  eval(id: SandboxId, request: EvalRequest, signal?: AbortSignal): Promise<EvalResult>;
  /** The same, with what the code prints in `feed`, whose reader sets the pace. */
  evalStreamed(
    id: SandboxId,
    request: EvalRequest,
    followed: { readonly feed: EvalFeed; readonly signal: AbortSignal | undefined },
  ): Promise<EvalEnd>;

  /** What happened last, and what happens. */
  readonly events: EventLog;
  /** The files of running guests. */
  readonly files: GuestFiles;

  /**
   * Ends every bake, and every sandbox unless they are to be detached: then they run on, and the
   * next daemon of the data directory adopts them. Returns when nothing else is left.
   */
  close(sandboxes: "detach" | "kill"): Promise<void>;
}
